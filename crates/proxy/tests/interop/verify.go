// Command verify ends with 0 if a TLS connection to ADDRESS is trusted under CA for NAME: verify ADDRESS CA NAME.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"log"
	"os"
)

func main() {
	address, ca, name := os.Args[1], os.Args[2], os.Args[3]
	pem, err := os.ReadFile(ca)
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		log.Fatal("no certificate in ", ca)
	}
	conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots, ServerName: name})
	if err != nil {
		log.Fatal(err)
	}
	conn.Close()
}
