// Command frames says what the libraries of the API server understand of a client's bytes, so that the codecs of
// crates/wire can be compared with them.
//
// Each line of standard input is the name of a library, a space, and bytes in hexadecimal digits: what a client says
// behind the handshake. The answer is one line of JSON:
//
//	spdy     {"frames": [...], "streams": [...], "end": ...} of moby/spdystream
//	ws       {"messages": [...]} of golang.org/x/net/websocket: each frame of data that it hands on
//	gorilla  {"messages": [...]} of gorilla/websocket: each whole message that it hands on
package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	gorilla "github.com/gorilla/websocket"
	"github.com/moby/spdystream"
	"github.com/moby/spdystream/spdy"
	"golang.org/x/net/websocket"
)

// The first bytes of a header's value that are compared.
const maxValue = 64

// How long a server may take for what a client has said, and how long that client stays: no stream can be answered once
// it has left.
const (
	patience = 2 * time.Second
	linger   = 2 * time.Millisecond
)

// Frame is one frame of SPDY; which fields mean something depends on its kind.
type Frame struct {
	Kind       string `json:"kind"`
	ID         uint32 `json:"id"`
	Fin        bool   `json:"fin"`
	StreamType string `json:"streamType"`
	Port       string `json:"port"`
	Payload    string `json:"payload"`
}

// Stream is one that a server has opened.
type Stream struct {
	ID         uint32 `json:"id"`
	StreamType string `json:"streamType"`
}

// Spdy is what moby/spdystream understands. End is "eof" between two frames, "partial" within one, else "error".
type Spdy struct {
	Frames  []Frame  `json:"frames"`
	Streams []Stream `json:"streams"`
	End     string   `json:"end"`
}

// WebSocket is what a library for it understands: payloads in hexadecimal digits.
type WebSocket struct {
	Messages []string `json:"messages"`
}

func main() {
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		answer, err := understood(strings.TrimSuffix(line, "\n"))
		if err != nil {
			fmt.Fprintln(os.Stderr, "frames:", err)
			os.Exit(1)
		}
		if err := out.Encode(answer); err != nil {
			return
		}
	}
}

func understood(line string) (any, error) {
	library, digits, _ := strings.Cut(line, " ")
	said, err := hex.DecodeString(digits)
	if err != nil {
		return nil, err
	}
	switch library {
	case "spdy":
		return overSpdy(said)
	case "ws":
		return WebSocket{received(said)}, nil
	case "gorilla":
		return readMessages(said)
	}
	return nil, fmt.Errorf("no library is called %q", library)
}

// === SPDY

func overSpdy(said []byte) (*Spdy, error) {
	framer, err := spdy.NewFramer(io.Discard, bytes.NewReader(said))
	if err != nil {
		return nil, err
	}
	answer := &Spdy{Frames: []Frame{}}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			answer.End = end(err)
			break
		}
		answer.Frames = append(answer.Frames, shown(frame))
	}
	answer.Streams, err = opened(said)
	return answer, err
}

func end(err error) string {
	switch {
	case errors.Is(err, io.EOF):
		return "eof"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "partial"
	}
	return "error"
}

func shown(frame spdy.Frame) Frame {
	switch frame := frame.(type) {
	case *spdy.DataFrame:
		fin := frame.Flags&spdy.DataFlagFin != 0
		return Frame{Kind: "data", ID: uint32(frame.StreamId), Fin: fin, Payload: hex.EncodeToString(frame.Data)}
	case *spdy.SynStreamFrame:
		return withHeaders("syn", frame.StreamId, frame.CFHeader.Flags, frame.Headers)
	case *spdy.SynReplyFrame:
		return withHeaders("reply", frame.StreamId, frame.CFHeader.Flags, frame.Headers)
	case *spdy.HeadersFrame:
		return withHeaders("headers", frame.StreamId, frame.CFHeader.Flags, frame.Headers)
	case *spdy.RstStreamFrame:
		return Frame{Kind: "reset", ID: uint32(frame.StreamId)}
	case *spdy.PingFrame:
		return Frame{Kind: "ping", ID: frame.Id}
	case *spdy.GoAwayFrame:
		return Frame{Kind: "away"}
	}
	return Frame{Kind: "other"}
}

func withHeaders(kind string, id spdy.StreamId, flags spdy.ControlFlags, headers http.Header) Frame {
	fin := flags&spdy.ControlFlagFin != 0
	return Frame{
		Kind: kind, ID: uint32(id), Fin: fin,
		StreamType: value(headers, "streamtype"), Port: value(headers, "port"),
	}
}

func value(headers http.Header, name string) string {
	value := headers.Get(name)
	return hex.EncodeToString([]byte(value[:min(len(value), maxValue)]))
}

// The streams that a server opens for a client that says this.
func opened(bytes []byte) ([]Stream, error) {
	server, err := spdystream.NewConnection(&lingering{newSaid(bytes)}, true)
	if err != nil {
		return nil, err
	}
	var lock sync.Mutex
	streams := []Stream{}
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve(func(stream *spdystream.Stream) {
			lock.Lock()
			streams = append(streams, Stream{stream.Identifier(), value(stream.Headers(), "streamtype")})
			lock.Unlock()
			// Data that is not read stops a worker, and so does a reset of a stream that was not answered.
			stream.SendReply(http.Header{}, false)
			go io.Copy(io.Discard, stream)
			go readHeaders(stream)
		})
	}()
	select {
	case <-served:
	case <-time.After(patience):
		// A server that has stopped opens nothing more.
	}
	lock.Lock()
	defer lock.Unlock()
	sort.Slice(streams, func(a, b int) bool { return streams[a].ID < streams[b].ID })
	return streams, nil
}

func readHeaders(stream *spdystream.Stream) {
	for {
		if _, err := stream.ReceiveHeader(); err != nil {
			return
		}
	}
}

// === WebSocket

// received is what the API server's and the kubelet's servers receive (k8s.io/apimachinery/pkg/util/httpstream/wsstream).
func received(said []byte) []string {
	messages := []string{}
	server := websocket.Server{Handler: func(connection *websocket.Conn) {
		for {
			var data []byte
			if err := websocket.Message.Receive(connection, &data); err != nil {
				return
			}
			messages = append(messages, hex.EncodeToString(data))
		}
	}}
	server.ServeHTTP(newAnswer(said), handshake())
	return messages
}

// readMessages is what the API server's tunnel reads (k8s.io/apimachinery/pkg/util/portforward).
func readMessages(said []byte) (WebSocket, error) {
	answer := WebSocket{[]string{}}
	upgrader := gorilla.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	connection, err := upgrader.Upgrade(newAnswer(said), handshake(), nil)
	if err != nil {
		return answer, err
	}
	for {
		_, message, err := connection.ReadMessage()
		if err != nil {
			return answer, nil
		}
		answer.Messages = append(answer.Messages, hex.EncodeToString(message))
	}
}

func handshake() *http.Request {
	request, err := http.NewRequest(http.MethodGet, "http://server/", nil)
	if err != nil {
		panic(err)
	}
	for name, value := range map[string]string{
		"Connection":            "Upgrade",
		"Upgrade":               "websocket",
		"Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key":     "AAAAAAAAAAAAAAAAAAAAAA==",
	} {
		request.Header.Set(name, value)
	}
	request.RequestURI = "/"
	return request
}

// Answer is a connection behind a request whose client has said everything.
type Answer struct {
	header     http.Header
	connection *said
}

func newAnswer(bytes []byte) *Answer {
	return &Answer{http.Header{}, newSaid(bytes)}
}

func (answer *Answer) Header() http.Header         { return answer.header }
func (answer *Answer) Write(b []byte) (int, error) { return len(b), nil }
func (answer *Answer) WriteHeader(int)             {}

// Hijack makes it a http.Hijacker.
func (answer *Answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	buffered := bufio.NewReadWriter(bufio.NewReader(answer.connection), bufio.NewWriter(answer.connection))
	return answer.connection, buffered, nil
}

// A connection to nobody, from which bytes are read.
type said struct{ *bytes.Reader }

func newSaid(b []byte) *said { return &said{bytes.NewReader(b)} }

func (*said) Write(b []byte) (int, error)      { return len(b), nil }
func (*said) Close() error                     { return nil }
func (*said) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*said) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*said) SetDeadline(time.Time) error      { return nil }
func (*said) SetReadDeadline(time.Time) error  { return nil }
func (*said) SetWriteDeadline(time.Time) error { return nil }

// A client that stays for a moment after its last word.
type lingering struct{ *said }

func (l *lingering) Read(b []byte) (int, error) {
	read, err := l.said.Read(b)
	if err == io.EOF {
		time.Sleep(linger)
	}
	return read, err
}
