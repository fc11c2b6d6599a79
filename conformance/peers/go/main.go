// Command mip-go-peer is a MIP server that keeps everything in memory: the levels core and history, written from the
// specification alone.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"mip.example/peer/internal/server"
)

// config is what the server is started with; with --stdin it comes as one line of JSON.
type config struct {
	Listen string `json:"listen"`
	Token  string `json:"token"`
}

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "mip-go-peer:", err)
		os.Exit(1)
	}
}

func run(args []string, stdin io.Reader, stdout io.Writer) error {
	flags := flag.NewFlagSet("mip-go-peer", flag.ExitOnError)
	listen := flags.String("listen", "127.0.0.1:0", "the `address` to listen on; port 0 chooses one")
	tokenFile := flags.String("token-file", "", "the `file` that holds the token; without it, MIP_TOKEN of the environment")
	heartbeat := flags.Duration("heartbeat", 5*time.Second, "how often an idle watch says that it lives")
	patience := flags.Duration("patience", 10*time.Second, "how long a watch waits for a slow reader")
	plain := flags.Bool("allow-plaintext", false, "listen on more than loopback, without TLS")
	fromStdin := flags.Bool("stdin", false, "read one line of JSON with listen and token, write one with address, end when stdin closes")
	flags.Parse(args)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	lines := bufio.NewReader(stdin)
	settings, err := configure(*fromStdin, lines, *listen, *tokenFile)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", settings.Listen)
	if err != nil {
		return err
	}
	if !listener.Addr().(*net.TCPAddr).IP.IsLoopback() && !*plain {
		return errors.New("tokens would travel in plain text; listen on loopback, or say --allow-plaintext")
	}
	peer := server.New(server.Options{Token: settings.Token, Heartbeat: *heartbeat, Patience: *patience})
	transport, err := peer.GRPC()
	if err != nil {
		return err
	}
	if *fromStdin {
		line, err := json.Marshal(map[string]string{"address": listener.Addr().String()})
		if err != nil {
			return err
		}
		fmt.Fprintln(stdout, string(line))
		go func() {
			io.Copy(io.Discard, lines)
			stop()
		}()
	} else {
		fmt.Fprintln(stdout, listener.Addr())
	}
	go func() {
		<-ctx.Done()
		peer.Stop(transport)
	}()
	return transport.Serve(listener)
}

func configure(fromStdin bool, lines *bufio.Reader, listen, tokenFile string) (config, error) {
	settings := config{Listen: listen, Token: os.Getenv("MIP_TOKEN")}
	switch {
	case fromStdin:
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return settings, fmt.Errorf("no line of configuration on stdin: %w", err)
		}
		if err := json.Unmarshal(line, &settings); err != nil {
			return settings, fmt.Errorf("the line on stdin: %w", err)
		}
	case tokenFile != "":
		data, err := os.ReadFile(tokenFile)
		if err != nil {
			return settings, err
		}
		settings.Token = strings.TrimSpace(string(data))
	}
	if settings.Token == "" {
		return settings, errors.New("a token is needed: --token-file, MIP_TOKEN, or `token` on stdin")
	}
	return settings, nil
}
