// Package mip reads from the contract's descriptors what every RPC and field declares: reasons of errors, limits, formats,
// levels, permissions and states.
package mip

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "mip.example/peer/gen/mip/v1"
)

// Error is a refusal with its reason. It travels with the status code that errors.proto declares for the reason.
type Error struct {
	Reason   pb.ErrorReason
	Message  string
	Field    string
	Metadata map[string]string
	Retry    time.Duration
}

// Refuse makes an error without a field.
func Refuse(reason pb.ErrorReason, format string, args ...any) *Error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Field makes an error about a request field, by its path such as `memories[3].plaintext.text`.
func Field(reason pb.ErrorReason, path, format string, args ...any) *Error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...), Field: path}
}

// With adds metadata to the error.
func (e *Error) With(key, value string) *Error {
	if e.Metadata == nil {
		e.Metadata = map[string]string{}
	}
	e.Metadata[key] = value
	return e
}

// RetryAfter says in RetryInfo how many seconds to wait.
func (e *Error) RetryAfter(seconds int) *Error {
	e.Retry = time.Duration(seconds) * time.Second
	return e
}

// WithRevision adds the metadata `revision`.
func (e *Error) WithRevision(revision int64) *Error {
	return e.With("revision", strconv.FormatInt(revision, 10))
}

// Error is the message for people, with the path of the field where there is one.
func (e *Error) Error() string {
	if e.Field != "" {
		return e.Field + ": " + e.Message
	}
	return e.Message
}

// Name is an enum value's name as the wire has it: without the prefix that all values of its enum share.
func Name(value interface{ String() string }, prefix string) string {
	return strings.TrimPrefix(value.String(), prefix)
}

// GRPCStatus is what grpc sends for the error: ErrorInfo, and BadRequest where a field is named.
func (e *Error) GRPCStatus() *status.Status {
	options := e.Reason.Descriptor().Values().ByNumber(e.Reason.Number()).Options()
	rule := proto.GetExtension(options, pb.E_Reason).(*pb.ReasonRule)
	base := status.New(codes.Code(code.Code_value[rule.GetCode()]), e.Error())
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{
		Domain: "mip", Reason: Name(e.Reason, "ERROR_REASON_"), Metadata: e.Metadata,
	}}
	if e.Field != "" {
		details = append(details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: e.Field, Description: e.Message, Reason: Name(e.Reason, "ERROR_REASON_")},
		}})
	}
	if e.Retry > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.Retry)})
	}
	full, err := base.WithDetails(details...)
	if err != nil {
		panic(fmt.Sprintf("%v has no status: %v", e.Reason, err)) // The reason lacks its option, a fault of the contract.
	}
	return full
}
