package server

import (
	"context"
	"crypto/hmac"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "mip.example/peer/gen/mip/v1"
	"mip.example/peer/internal/mip"
)

// requestKey is the scope of a request_id. The principal is always the same one.
type requestKey struct{ method, resource, id string }

// recorded is what a request_id stands for: a keyed digest of the request, and the response.
type recorded struct {
	digest   []byte
	response proto.Message
}

func requestID(request proto.Message) string {
	message := request.ProtoReflect()
	if field := message.Descriptor().Fields().ByName("request_id"); field != nil {
		return message.Get(field).String()
	}
	return ""
}

// withoutID is the request as its digest takes it.
func withoutID(request proto.Message) []byte {
	stripped := proto.Clone(request).ProtoReflect()
	if field := stripped.Descriptor().Fields().ByName("request_id"); field != nil {
		stripped.Clear(field)
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(stripped.Interface())
	if err != nil {
		panic(err) // It was parsed from the wire.
	}
	return data
}

// mutate runs a mutation under the lock that orders all of them, or returns what the same request returned before. A call
// whose id belongs to a call in progress waits at the lock. Failed calls are not recorded.
func mutate[R proto.Message](ctx context.Context, s *Server, method, resource string, request proto.Message, do func() (R, error)) (R, error) {
	var none R
	id := requestID(request)
	key := requestKey{method, resource, strings.ToLower(id)} // A UUID is the same in capitals.
	var digest []byte
	if id != "" {
		// The digest has a key because a purge leaves it, and content can be guessed.
		digest = s.mac("request", string(withoutID(request)))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return none, err
	}
	if id != "" {
		if before := s.requests[key]; before != nil {
			if !hmac.Equal(before.digest, digest) {
				return none, mip.Field(pb.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED, "request_id", "was used with another request")
			}
			return proto.Clone(before.response).(R), nil
		}
	}
	response, err := do()
	if err != nil {
		return none, err
	}
	if id != "" {
		s.requests[key] = &recorded{digest, proto.Clone(response)}
	}
	return response, nil
}

// scrub takes out of all recorded responses what is purged: a repeated call returns what is left.
func (s *Server) scrub() {
	for _, before := range s.requests {
		s.scrubMessage(before.response.ProtoReflect())
	}
}

func (s *Server) scrubMessage(message protoreflect.Message) {
	switch found := message.Interface().(type) {
	case *pb.Memory:
		c := s.cubes[mip.LastID(mip.CubeOf(found.Name))]
		if m := c.memories[mip.LastID(found.Name)]; m.purged() {
			proto.Reset(found)
			proto.Merge(found, s.view(c, m, m.now()))
		}
		return
	case *pb.Cube:
		if s.cubes[mip.LastID(found.Name)].now().content == nil {
			found.DisplayName, found.Labels, found.EmbeddingModel = "", nil, ""
			found.PlaintextProfile, found.EmbeddingDimension = "", 0
		}
		return
	case *pb.Session:
		if s.cubes[mip.LastID(mip.CubeOf(found.Name))].now().content == nil {
			found.DisplayName, found.Participants, found.Labels = "", nil, nil
		}
		return
	}
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.Kind() != protoreflect.MessageKind:
		case field.IsList():
			for i := range value.List().Len() {
				s.scrubMessage(value.List().Get(i).Message())
			}
		default:
			s.scrubMessage(value.Message())
		}
		return true
	})
}
