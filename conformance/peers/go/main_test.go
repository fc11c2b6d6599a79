package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func TestTheFormOfTheSuite(t *testing.T) {
	configured, stdin := io.Pipe()
	stdout, printed := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run([]string{"--stdin"}, configured, printed) }()
	io.WriteString(stdin, `{"listen": "127.0.0.1:0", "token": "t"}`+"\n")
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var told struct{ Address string }
	if err := json.Unmarshal(line, &told); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(told.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, service := range []string{"", "mip.v1.MemoryService"} {
		if _, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service}); err != nil {
			t.Errorf("%q: %v", service, err)
		}
	}
	stdin.Close()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-ctx.Done():
		t.Error("the server goes on after its standard input closed")
	}
}

func TestWhatIsRefusedAtTheStart(t *testing.T) {
	t.Setenv("MIP_TOKEN", "")
	for _, line := range []string{``, `{"listen": "127.0.0.1:0"}`, `no JSON`, `{"listen": "0.0.0.0:0", "token": "t"}`} {
		if err := run([]string{"--stdin"}, strings.NewReader(line+"\n"), io.Discard); err == nil {
			t.Errorf("%s was accepted", line)
		}
	}
}
