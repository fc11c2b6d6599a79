package server

import (
	"context"
	"crypto/subtle"
	"errors"
	"io"
	"runtime/debug"
	"strings"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // Clients may compress.
	protocodec "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	pb "mip.example/peer/gen/mip/v1"
	"mip.example/peer/internal/mip"
)

// services are the services that the server implements, and levels what it implements of them.
var (
	services = []*grpc.ServiceDesc{
		&pb.ServerService_ServiceDesc, &pb.CubeService_ServiceDesc, &pb.MemoryService_ServiceDesc, &pb.SessionService_ServiceDesc,
	}
	levels = []string{"core", "history"}
)

// raw is a message as it came. The library refuses a message that does not parse before any code of ours runs, and without
// ErrorInfo; so messages are parsed here, after the token was checked.
type raw struct{ data []byte }

type rawCodec struct{}

func (rawCodec) Name() string { return protocodec.Name }

func (rawCodec) Marshal(value any) (mem.BufferSlice, error) {
	return encoding.GetCodecV2(protocodec.Name).Marshal(value)
}

func (rawCodec) Unmarshal(data mem.BufferSlice, value any) error {
	if frame, ok := value.(*raw); ok {
		frame.data = data.Materialize()
		return nil
	}
	return encoding.GetCodecV2(protocodec.Name).Unmarshal(data, value)
}

// register adds a service whose RPCs all go through the same checks, in the order of MIP-ERRS-009. Every RPC is registered
// as a stream, which is the same on the wire and leaves the reading of messages to the server.
func (s *Server) register(transport *grpc.Server, generated *grpc.ServiceDesc) error {
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(generated.ServiceName))
	if err != nil {
		return err
	}
	methods, err := mip.Methods(found.(protoreflect.ServiceDescriptor))
	if err != nil {
		return err
	}
	desc := grpc.ServiceDesc{ServiceName: generated.ServiceName, Metadata: generated.Metadata, HandlerType: (*any)(nil)}
	add := func(name string, handler grpc.StreamHandler) {
		desc.Streams = append(desc.Streams, grpc.StreamDesc{
			StreamName: name, Handler: s.guarded(methods[name], handler), ServerStreams: true, ClientStreams: true,
		})
	}
	for _, m := range generated.Methods {
		add(m.MethodName, func(_ any, stream grpc.ServerStream) error {
			response, err := m.Handler(s, stream.Context(), stream.RecvMsg, nil)
			if err != nil {
				return err
			}
			if proto.Size(response.(proto.Message)) > maxResponseBytes {
				return mip.Refuse(pb.ErrorReason_ERROR_REASON_RESPONSE_TOO_LARGE, "the response would have more than %d bytes", maxResponseBytes)
			}
			return stream.SendMsg(response)
		})
	}
	for _, m := range generated.Streams {
		add(m.StreamName, func(_ any, stream grpc.ServerStream) error { return m.Handler(s, stream) })
	}
	transport.RegisterService(&desc, s)
	return nil
}

// guarded checks the token and the level before anything is read, and gives every error its status.
func (s *Server) guarded(method mip.Method, handler grpc.StreamHandler) grpc.StreamHandler {
	return func(server any, stream grpc.ServerStream) (err error) {
		defer func() {
			if fault := recover(); fault != nil {
				err = internal(method.Name, fault, debug.Stack())
			}
		}()
		if method.Permission != pb.Permission_PERMISSION_OPEN {
			if err := s.authenticate(stream.Context()); err != nil {
				return err
			}
		}
		if !declared(method.Level) {
			return unimplemented(method.Name)
		}
		// The one principal administers the server, so that every permission holds.
		return classify(method.Name, handler(server, &checkedStream{stream}))
	}
}

func declared(level string) bool {
	for _, known := range levels {
		if level == known {
			return true
		}
	}
	return false
}

func unimplemented(name string) error {
	return mip.Refuse(pb.ErrorReason_ERROR_REASON_UNIMPLEMENTED, "%s is not implemented", name)
}

// unknown answers every RPC that is not registered.
func (s *Server) unknown(_ any, stream grpc.ServerStream) error {
	if err := s.authenticate(stream.Context()); err != nil {
		return err
	}
	name, _ := grpc.MethodFromServerStream(stream)
	return unimplemented(strings.ReplaceAll(strings.Trim(name, "/"), "/", "."))
}

func (s *Server) authenticate(ctx context.Context) error {
	shown := metadata.ValueFromIncomingContext(ctx, "authorization")
	if len(shown) == 0 {
		return mip.Refuse(pb.ErrorReason_ERROR_REASON_UNAUTHENTICATED, "the call carries no token")
	}
	scheme, token, _ := strings.Cut(shown[0], " ")
	if len(shown) > 1 || !strings.EqualFold(scheme, "bearer") || subtle.ConstantTimeCompare([]byte(token), []byte(s.options.Token)) != 1 {
		return mip.Refuse(pb.ErrorReason_ERROR_REASON_TOKEN_INVALID, "the token is not one of this server")
	}
	return nil
}

// classify gives errors of the context and of the library a reason.
func classify(method string, err error) error {
	var refusal *mip.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refusal):
		return refusal
	case errors.Is(err, context.DeadlineExceeded):
		return mip.Refuse(pb.ErrorReason_ERROR_REASON_DEADLINE_EXCEEDED, "the call's time ran out")
	case errors.Is(err, context.Canceled):
		return mip.Refuse(pb.ErrorReason_ERROR_REASON_CANCELLED, "the caller cancelled the call")
	}
	if _, known := status.FromError(err); known {
		return err // The connection broke while a message was read or sent; nobody hears the answer.
	}
	return internal(method, err, nil)
}

func internal(method string, fault any, stack []byte) error {
	id := uuid.NewString()
	incident(id, method, fault, stack)
	return mip.Refuse(pb.ErrorReason_ERROR_REASON_INTERNAL, "a fault of the server").With("incident", id)
}

// checkedStream parses messages itself and checks their declared limits.
type checkedStream struct{ grpc.ServerStream }

// RecvMsg reads a message. A unary call without a message reads as an empty one would not: as a malformed one.
func (c *checkedStream) RecvMsg(into any) error {
	var frame raw
	if err := c.ServerStream.RecvMsg(&frame); err != nil {
		if _, streams := into.(*pb.BulkAddMemoriesRequest); err == io.EOF && !streams {
			return mip.Refuse(pb.ErrorReason_ERROR_REASON_MALFORMED_MESSAGE, "the call carries no message")
		}
		return err
	}
	if len(frame.data) > maxRequestBytes {
		return mip.Refuse(pb.ErrorReason_ERROR_REASON_REQUEST_TOO_LARGE, "the message has more than %d bytes", maxRequestBytes)
	}
	message := into.(proto.Message)
	if err := proto.Unmarshal(frame.data, message); err != nil {
		return mip.Refuse(pb.ErrorReason_ERROR_REASON_MALFORMED_MESSAGE, "the message does not parse, or a string in it is not UTF-8")
	}
	exempt := ""
	if update, ok := message.(*pb.UpdateMemoryRequest); ok && changesWithinPlaintext(update) {
		exempt = "memory.plaintext.text"
	}
	return mip.Check(message, "", exempt)
}
