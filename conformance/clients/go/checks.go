package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	mip "mip.example/flow/gen/mip/v1"
)

// equal returns an error that names what differs.
func equal[T comparable](what string, got, wanted T) error {
	if got != wanted {
		return fmt.Errorf("%s is %v, not %v", what, show(got), show(wanted))
	}
	return nil
}

// show quotes strings, which may be empty or hold bytes.
func show(value any) any {
	if text, is := value.(string); is {
		return fmt.Sprintf("%q", text)
	}
	return value
}

// all joins the errors of several checks.
func all(checks ...error) error {
	return errors.Join(checks...)
}

// names returns the memories' names, separated by spaces.
func names(memories []*mip.Memory) string {
	found := make([]string, len(memories))
	for index, memory := range memories {
		found[index] = memory.GetName()
	}
	return strings.Join(found, " ")
}

// refused checks that a call failed with a code and with a reason in google.rpc.ErrorInfo, which gRPC reads from
// grpc-status-details-bin.
func refused(err error, code codes.Code, reason string) error {
	if err == nil {
		return fmt.Errorf("the call was not refused")
	}
	failed, is := status.FromError(err)
	if !is {
		return fmt.Errorf("no status: %w", err)
	}
	for _, detail := range failed.Details() {
		if info, is := detail.(*errdetails.ErrorInfo); is {
			return all(
				equal("the code", failed.Code(), code),
				equal("the domain", info.Domain, "mip"),
				equal("the reason", info.Reason, reason),
			)
		}
	}
	return fmt.Errorf("no google.rpc.ErrorInfo in %w", err)
}

// newUUID returns a random UUID (RFC 9562, version 4).
func newUUID() string {
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		panic(err) // Never on a system with a working source of randomness.
	}
	random[6] = random[6]&0x0f | 0x40
	random[8] = random[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", random[:4], random[4:6], random[6:8], random[8:10], random[10:])
}
