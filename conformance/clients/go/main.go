// Command flow runs the core flow of MIP against a server, through nothing but stubs generated from the protos.
//
//	flow ADDRESS TOKEN_FILE
//
// It prints a line for each step and ends with status 1 at the first one that does not hold.
package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	mip "mip.example/flow/gen/mip/v1"
)

// stepTimeout bounds one step, whatever the server does.
const stepTimeout = 60 * time.Second

// flow is one run: the stubs, what the server declares and what earlier steps made.
type flow struct {
	server   mip.ServerServiceClient
	cubes    mip.CubeServiceClient
	memories mip.MemoryServiceClient
	blobs    mip.BlobServiceClient

	// declared holds the levels, services and features of GetCapabilities.
	declared []string
	runID    string
	cube     string
	first    string
	second   string
	etag     string
	add      *mip.AddMemoriesRequest
	rollback *mip.Commit
}

// step is a part of the flow; needs is what the server must declare for it, empty where it must offer it in any case.
type step struct {
	name  string
	needs string
	run   func(*flow, context.Context) error
}

// requestID returns a UUID for each mutation of this run.
func (f *flow) requestID(number int) string {
	return fmt.Sprintf("%s%02d", f.runID[:len(f.runID)-2], number)
}

// run runs the steps in order and returns how many ran and how many the server does not declare.
func (f *flow) run(ctx context.Context, token string) (passed, undeclared int, failure error) {
	for _, step := range steps {
		if step.needs != "" && !slices.Contains(f.declared, step.needs) {
			fmt.Printf("not declared: %s (%s)\n", step.name, step.needs)
			undeclared++
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, stepTimeout)
		if step.name != "GetCapabilities" {
			bounded = metadata.AppendToOutgoingContext(bounded, "authorization", "Bearer "+token)
		}
		err := step.run(f, bounded)
		cancel()
		if err != nil {
			return passed, undeclared, fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Printf("ok: %s\n", step.name)
		passed++
	}
	return passed, undeclared, nil
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: flow ADDRESS TOKEN_FILE")
		os.Exit(2)
	}
	if err := connectAndRun(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintf(os.Stderr, "FAILED: %v\n", err)
		os.Exit(1)
	}
}

// connectAndRun runs the flow over one connection, in plain text: MIP servers speak it on loopback.
func connectAndRun(address, tokenFile string) error {
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return fmt.Errorf("the token: %w", err)
	}
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("the connection: %w", err)
	}
	defer connection.Close()
	runID := newUUID()
	run := &flow{
		server:   mip.NewServerServiceClient(connection),
		cubes:    mip.NewCubeServiceClient(connection),
		memories: mip.NewMemoryServiceClient(connection),
		blobs:    mip.NewBlobServiceClient(connection),
		runID:    runID,
		cube:     "cubes/flow-go-" + runID,
	}
	passed, undeclared, err := run.run(context.Background(), strings.TrimSpace(string(token)))
	if err != nil {
		return err
	}
	fmt.Printf("the core flow passed: %d steps, %d not declared\n", passed, undeclared)
	return nil
}
