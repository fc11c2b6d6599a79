package server

import (
	"bytes"
	"context"
	"crypto/hmac"
	"encoding/base64"
	"encoding/binary"

	"google.golang.org/protobuf/proto"

	pb "mip.example/peer/gen/mip/v1"
	"mip.example/peer/internal/mip"
)

// place is where a page begins: a position in the list, and the revision that the list is read at.
type place struct{ position, revision int64 }

const (
	tokenSize = 16
	macSize   = 32
	// pageBytes is what the items of a page may take, so that the response stays below its limit.
	pageBytes = maxResponseBytes - 64<<10
)

// pageRequest is what all requests for pages have.
type pageRequest interface {
	proto.Message
	GetPageSize() int32
	GetPageToken() string
}

// arguments are what a token is bound to: everything but the token itself and the size of the page.
func arguments(request pageRequest) string {
	stripped := proto.Clone(request).ProtoReflect()
	fields := stripped.Descriptor().Fields()
	stripped.Clear(fields.ByName("page_size"))
	stripped.Clear(fields.ByName("page_token"))
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(stripped.Interface())
	if err != nil {
		panic(err) // It was parsed from the wire.
	}
	return string(stripped.Descriptor().FullName()) + "\x00" + string(data)
}

// open reads the token of a request; without one the list begins at `first`.
func (s *Server) open(request pageRequest, first place) (place, error) {
	if request.GetPageToken() == "" {
		return first, nil
	}
	token, err := base64.RawURLEncoding.DecodeString(request.GetPageToken())
	if err != nil || len(token) != tokenSize+macSize ||
		!hmac.Equal(token[tokenSize:], s.mac("page", principal, arguments(request), string(token[:tokenSize]))) {
		return place{}, mip.Field(pb.ErrorReason_ERROR_REASON_INVALID_PAGE_TOKEN, "page_token", "is not one of this list")
	}
	return place{int64(binary.BigEndian.Uint64(token)), int64(binary.BigEndian.Uint64(token[8:]))}, nil
}

func (s *Server) token(request pageRequest, at place) string {
	var token bytes.Buffer
	binary.Write(&token, binary.BigEndian, [2]int64{at.position, at.revision})
	token.Write(s.mac("page", principal, arguments(request), token.String()))
	return base64.RawURLEncoding.EncodeToString(token.Bytes())
}

// page fills a page from a position on. next gives the size of the item at a position after taking it into the response:
// 0 where the position holds none, -1 at the end of the list. drop takes the last item back, when it was too much.
func (s *Server) page(ctx context.Context, request pageRequest, at place, usual, most int, take func(position int64) int, drop func()) (string, error) {
	size := int(request.GetPageSize())
	if size == 0 {
		size = usual
	}
	size = min(size, most)
	bytes := 0
	for taken := 0; ; at.position++ {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		got := take(at.position)
		if got < 0 {
			return "", nil
		}
		if got == 0 {
			continue
		}
		taken++
		bytes += got
		if taken > size || taken > 1 && bytes > pageBytes {
			drop()
			return s.token(request, at), nil
		}
	}
}

// last drops the last element of a page.
func last[T any](items *[]T) func() {
	return func() { *items = (*items)[:len(*items)-1] }
}
