// Command recorder takes recordings as existing recorders do, with Go's own HTTP stack: recorder v1 | v2.
//
//	v1  POST /record over HTTP/1.1 alone, answered when it has ended
//	v2  POST /v2/record over HTTP/2 with prior knowledge, acknowledged as it comes, by a number of bytes and no level
//
// It prints the port it listens on, and a line for each recording: its length and its SHA-256.
package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	mux, protocols := http.NewServeMux(), new(http.Protocols)
	switch os.Args[1] {
	case "v1":
		mux.HandleFunc("POST /record", func(w http.ResponseWriter, r *http.Request) { record(r.Body, func(int64) {}) })
		protocols.SetHTTP1(true)
	case "v2":
		mux.HandleFunc("HEAD /v2/record", func(http.ResponseWriter, *http.Request) {})
		mux.HandleFunc("POST /v2/record", v2)
		protocols.SetUnencryptedHTTP2(true)
	default:
		log.Fatal("usage: recorder v1 | v2")
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	server := &http.Server{Handler: mux, Protocols: protocols}
	log.Fatal(server.Serve(listener))
}

func v2(w http.ResponseWriter, r *http.Request) {
	flush := http.NewResponseController(w).Flush
	w.WriteHeader(http.StatusOK)
	flush()
	encoder := json.NewEncoder(w)
	record(r.Body, func(bytes int64) {
		encoder.Encode(struct {
			Ack int64 `json:"ack,omitempty"`
		}{bytes})
		flush()
	})
}

func record(body io.Reader, seen func(int64)) {
	sum, buffer, total := sha256.New(), make([]byte, 32<<10), int64(0)
	for {
		n, err := body.Read(buffer)
		sum.Write(buffer[:n])
		total += int64(n)
		seen(total)
		if err != nil {
			break
		}
	}
	fmt.Printf("%d %x\n", total, sum.Sum(nil))
}
