module podwitness.dev/hack/interop/recorder

go 1.24
