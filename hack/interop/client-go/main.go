// Command client-go runs one session with client-go's own executors, so that a
// test can choose what kubectl leaves no choice in: transport and subprotocol;
// or a few requests with its dynamic client.
//
//	client-go [-n NAMESPACE] [-over ws|spdy|fallback] [-protocol NAME,…] exec|attach [-i] [-t] [-c NAME] POD [-- WORD…]
//	client-go [-n NAMESPACE] [-over ws|spdy|fallback] port-forward POD PORT
//	client-go [-n NAMESPACE] requests NAME
//
// It runs in a pod, as the pod's service account. With fallback, -protocol is
// what the WebSocket attempt offers. port-forward asks the port for "/" over
// HTTP and prints the answer. requests creates a ConfigMap, lists it, watches
// until it is seen and deletes it, and says so. The exit code is that of the
// command.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

// client is where the API server is, and how it is spoken to.
type client struct {
	config    *rest.Config
	namespace string
	over      string
	protocols []string
}

func main() {
	err := run(os.Args[1:])
	var code exec.CodeExitError
	switch {
	case errors.As(err, &code):
		os.Exit(code.Code)
	case err != nil:
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("client-go", flag.ExitOnError)
	namespace := flags.String("n", "default", "namespace")
	over := flags.String("over", "fallback", "ws, spdy or fallback")
	protocol := flags.String("protocol", "", "subprotocols, instead of those that client-go prefers")
	if err := flags.Parse(args); err != nil {
		return err
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	c := client{config: config, namespace: *namespace, over: *over}
	if *protocol != "" {
		c.protocols = strings.Split(*protocol, ",")
	}
	if flags.NArg() == 0 {
		return errors.New("no verb: exec, attach, port-forward or requests")
	}
	switch verb, rest := flags.Arg(0), flags.Args()[1:]; verb {
	case "exec", "attach":
		return c.session(verb, rest)
	case "port-forward":
		return c.forward(rest)
	case "requests":
		return c.requests(rest)
	default:
		return fmt.Errorf("unknown verb %q", verb)
	}
}

// session runs exec or attach.
func (c client) session(verb string, args []string) error {
	flags := flag.NewFlagSet(verb, flag.ExitOnError)
	stdin := flags.Bool("i", false, "pass standard input")
	tty := flags.Bool("t", false, "ask for a terminal")
	container := flags.String("c", "", "container")
	if err := flags.Parse(args); err != nil {
		return err
	}
	query := url.Values{"stdout": {"true"}, "command": command(flags.Args())}
	options := remotecommand.StreamOptions{Stdout: os.Stdout, Tty: *tty}
	if *container != "" {
		query.Set("container", *container)
	}
	if *stdin {
		query.Set("stdin", "true")
		options.Stdin = os.Stdin
	}
	if *tty {
		query.Set("tty", "true")
		options.TerminalSizeQueue = &once{size: &remotecommand.TerminalSize{Width: 101, Height: 31}}
	} else {
		query.Set("stderr", "true")
		options.Stderr = os.Stderr
	}
	executor, err := c.executor(c.url(flags.Arg(0), verb, query))
	if err != nil {
		return err
	}
	return executor.StreamWithContext(context.Background(), options)
}

// command is what follows POD, without the "--".
func command(args []string) []string {
	if len(args) > 1 && args[1] == "--" {
		return args[2:]
	}
	return nil
}

// once is a terminal whose size never changes.
type once struct{ size *remotecommand.TerminalSize }

func (o *once) Next() *remotecommand.TerminalSize {
	size := o.size
	o.size = nil
	return size
}

func (c client) url(pod, subresource string, query url.Values) *url.URL {
	// Host of an in-cluster configuration is https://HOST:PORT.
	u, _ := url.Parse(c.config.Host)
	u.Path = fmt.Sprintf("/api/v1/namespaces/%s/pods/%s/%s", c.namespace, pod, subresource)
	u.RawQuery = query.Encode()
	return u
}

func (c client) executor(u *url.URL) (remotecommand.Executor, error) {
	switch c.over {
	case "ws":
		return c.overWebSocket(u)
	case "spdy":
		return c.overSPDY(u, c.protocols)
	}
	first, err := c.overWebSocket(u)
	if err != nil {
		return nil, err
	}
	second, err := c.overSPDY(u, nil)
	if err != nil {
		return nil, err
	}
	return remotecommand.NewFallbackExecutor(first, second, httpstream.IsUpgradeFailure)
}

func (c client) overWebSocket(u *url.URL) (remotecommand.Executor, error) {
	if len(c.protocols) == 0 {
		return remotecommand.NewWebSocketExecutor(c.config, http.MethodGet, u.String())
	}
	return remotecommand.NewWebSocketExecutorForProtocols(c.config, http.MethodGet, u.String(), c.protocols...)
}

func (c client) overSPDY(u *url.URL, protocols []string) (remotecommand.Executor, error) {
	if len(protocols) == 0 {
		return remotecommand.NewSPDYExecutor(c.config, http.MethodPost, u)
	}
	transport, upgrader, err := spdy.RoundTripperFor(c.config)
	if err != nil {
		return nil, err
	}
	return remotecommand.NewSPDYExecutorForProtocols(transport, upgrader, http.MethodPost, u, protocols...)
}

// forward fetches "/" of a port of a pod.
func (c client) forward(args []string) error {
	if len(args) != 2 {
		return errors.New("port-forward takes POD and PORT")
	}
	dialer, err := c.dialer(c.url(args[0], "portforward", nil))
	if err != nil {
		return err
	}
	stop, ready, failed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	defer close(stop)
	forwarder, err := portforward.New(dialer, []string{"0:" + args[1]}, stop, ready, io.Discard, os.Stderr)
	if err != nil {
		return err
	}
	go func() { failed <- forwarder.ForwardPorts() }()
	select {
	case err := <-failed:
		return err
	case <-ready:
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		return err
	}
	return fetch(fmt.Sprintf("http://127.0.0.1:%d/", ports[0].Local))
}

func (c client) dialer(u *url.URL) (httpstream.Dialer, error) {
	transport, upgrader, err := spdy.RoundTripperFor(c.config)
	if err != nil {
		return nil, err
	}
	overSPDY := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, u)
	if c.over == "spdy" {
		return overSPDY, nil
	}
	tunnelled, err := portforward.NewSPDYOverWebsocketDialer(u, c.config)
	if err != nil || c.over == "ws" {
		return tunnelled, err
	}
	return portforward.NewFallbackDialer(tunnelled, overSPDY, httpstream.IsUpgradeFailure), nil
}

func fetch(address string) error {
	response, err := http.Get(address)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}

// requests asks for one ConfigMap in every way.
func (c client) requests(args []string) error {
	if len(args) != 1 {
		return errors.New("requests takes NAME")
	}
	all, err := dynamic.NewForConfig(c.config)
	if err != nil {
		return err
	}
	ctx, name := context.Background(), args[0]
	maps := all.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(c.namespace)
	made := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name},
	}}
	if _, err := maps.Create(ctx, made, metav1.CreateOptions{}); err != nil {
		return err
	}
	fmt.Println("created")
	one := metav1.ListOptions{FieldSelector: "metadata.name=" + name}
	list, err := maps.List(ctx, one)
	if err != nil {
		return err
	}
	for _, found := range list.Items {
		if found.GetName() != name {
			return fmt.Errorf("%s was listed, too", found.GetName())
		}
		fmt.Println("listed")
	}
	if err := added(ctx, maps, one); err != nil {
		return err
	}
	fmt.Println("watched")
	if err := maps.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return err
	}
	fmt.Println("deleted")
	return nil
}

// added watches until something is added.
func added(ctx context.Context, maps dynamic.ResourceInterface, one metav1.ListOptions) error {
	events, err := maps.Watch(ctx, one)
	if err != nil {
		return err
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		if event.Type == watch.Added {
			return nil
		}
	}
	return errors.New("the watch ended")
}
