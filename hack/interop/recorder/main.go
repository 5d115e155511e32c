// Command recorder talks to a recorder as existing clients do, with Go's own HTTP stack: an HTTP/2 client with prior
// knowledge for /v2/record, an HTTP/1.1 client for the older /record, and a request body that is a pipe without any
// buffer. It prints one line per scenario and fails at the first that does not hold.
//
//	go run . HOST:PORT
//
// The last line is the SHA-256 of each recording, so that the caller can compare it with what was stored.
package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"time"
)

const (
	patience = 20 * time.Second
	header   = `{"version":2,"width":0,"height":0,"timestamp":1700000000,"command":"sh -c a \u0026\u0026 b","srcNode":"a.ts.net","srcNodeID":"nX","srcNodeUserID":7,"srcNodeUser":"u@e","env":null,"sshUser":"","localUser":"","connectionID":"","kubernetes":{"PodName":"p","Namespace":"n","Container":"c","SessionType":"exec"}}` + "\n"
)

// frame is what a response to /v2/record consists of.
type frame struct {
	Ack   int64  `json:"ack,omitempty"`
	Error string `json:"error,omitempty"`
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: recorder HOST:PORT")
		os.Exit(64)
	}
	base := "http://" + os.Args[1]
	for _, scenario := range []struct {
		name string
		run  func(base string) (string, error)
	}{
		{"the probe says 200 over HTTP/2", probe},
		{"a mebibyte over HTTP/2, every byte acknowledged", v2},
		{"a mebibyte over HTTP/1.1 after 100 Continue", v1},
		{"a refusal does not hang with an open request body", refusal},
		{"a malformed line is answered by an error frame", malformed},
	} {
		done := make(chan struct{})
		var result string
		var err error
		go func() { result, err = scenario.run(base); close(done) }()
		select {
		case <-done:
		case <-time.After(patience):
			err = errors.New("no end in " + patience.String())
		}
		if err != nil {
			fmt.Printf("FAILED %s: %v\n", scenario.name, err)
			os.Exit(1)
		}
		fmt.Printf("ok %s %s\n", scenario.name, result)
	}
}

func h2c() *http.Client {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{Protocols: protocols}}
}

func probe(base string) (string, error) {
	response, err := h2c().Head(base + "/v2/record")
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || response.ProtoMajor < 2 {
		return "", fmt.Errorf("%s %s", response.Proto, response.Status)
	}
	return response.Header.Get("Podwitness-Ack"), nil
}

func v2(base string) (string, error) {
	reader, writer := io.Pipe()
	response, err := h2c().Post(base+"/v2/record", "", reader)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", errors.New(response.Status)
	}
	sent := make(chan int64, 1)
	sum := sha256.New()
	go func() { sent <- record(writer, sum); writer.Close() }()
	last := frame{}
	decoder := json.NewDecoder(response.Body)
	for {
		var next frame
		if err := decoder.Decode(&next); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return "", err
		}
		if next.Error != "" {
			return "", errors.New(next.Error)
		}
		if next.Ack < last.Ack {
			return "", fmt.Errorf("acknowledgements run backwards: %d after %d", next.Ack, last.Ack)
		}
		last = next
	}
	if total := <-sent; total != last.Ack {
		return "", fmt.Errorf("%d of %d bytes acknowledged", last.Ack, total)
	}
	return fmt.Sprintf("%x", sum.Sum(nil)), nil
}

func v1(base string) (string, error) {
	reader, writer := io.Pipe()
	request, err := http.NewRequest(http.MethodPost, base+"/record", reader)
	if err != nil {
		return "", err
	}
	request.Header.Set("Expect", "100-continue")
	continued := make(chan struct{})
	trace := &httptrace.ClientTrace{Got100Continue: func() { close(continued) }}
	request = request.WithContext(httptrace.WithClientTrace(request.Context(), trace))
	client := &http.Client{Transport: &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		ExpectContinueTimeout: patience,
	}}
	sum := sha256.New()
	go func() { <-continued; record(writer, sum); writer.Close() }()
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", errors.New(response.Status)
	}
	return fmt.Sprintf("%x", sum.Sum(nil)), nil
}

func refusal(base string) (string, error) {
	reader, writer := io.Pipe()
	defer writer.Close()
	response, err := h2c().Post(base+"/v2/nothing", "", reader)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusNotFound {
		return "", errors.New(response.Status)
	}
	return "", response.Body.Close()
}

func malformed(base string) (string, error) {
	reader, writer := io.Pipe()
	response, err := h2c().Post(base+"/v2/record", "", reader)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	go func() { io.WriteString(writer, header+"{}\n") }()
	decoder := json.NewDecoder(response.Body)
	for {
		var next frame
		if err := decoder.Decode(&next); err != nil {
			return "", fmt.Errorf("the response ended without an error frame: %w", err)
		}
		if next.Error != "" {
			return "", nil
		}
	}
}

// record writes a header and a mebibyte of random output, a write for each line, and returns the number of bytes.
func record(to io.Writer, sum hash.Hash) int64 {
	both := io.MultiWriter(to, sum)
	total, _ := io.WriteString(both, header)
	random := make([]byte, 4096)
	for i := range 256 {
		rand.Read(random)
		line, _ := json.Marshal([]any{float64(i) / 8, "o", base64.StdEncoding.EncodeToString(random)})
		n, _ := both.Write(append(line, '\n'))
		total += n
	}
	return int64(total)
}
