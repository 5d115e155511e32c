module podwitness.dev/hack/interop/frames

go 1.24.0

godebug default=go1.24

require (
	github.com/gorilla/websocket v1.5.4-0.20250319132907-e064f32e3674
	github.com/moby/spdystream v0.5.1
	golang.org/x/net v0.47.0
)
