// Package server is a MIP server that keeps everything in memory. It was written from protos/mip/v1 and docs/spec alone.
package server

import (
	"context"
	"crypto/rand"
	"log"
	"math"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	pb "mip.example/peer/gen/mip/v1"
)

// What GetCapabilities declares, and what the server holds itself to.
const (
	maxRequestBytes  = 3 << 20
	maxResponseBytes = 4 << 20 // The default of gRPC clients.
	maxBatchMemories = 1000
	maxPageSize      = 1000
	maxTopK          = 1000
	maxSearchCubes   = 100
	maxBulkMemories  = 100_000
	maxBulkBytes     = 256 << 20
	// maxOpenBulkBytes bounds the streams of BulkAddMemories together.
	maxOpenBulkBytes = 512 << 20
	// maxTransportBytes is what the transport takes in, so that a request above maxRequestBytes is refused with its reason.
	maxTransportBytes = 64 << 20
)

// Options are what a server is started with.
type Options struct {
	// Token is the one bearer token that is accepted; its principal administers everything.
	Token string
	// Heartbeat is how often an idle watch says that it lives.
	Heartbeat time.Duration
	// Patience is how long a frame of a watch may wait for a slow reader.
	Patience time.Duration
}

// Server holds all cubes. One lock orders all mutations; reads share it.
type Server struct {
	pb.UnimplementedServerServiceServer
	pb.UnimplementedCubeServiceServer
	pb.UnimplementedMemoryServiceServer
	pb.UnimplementedSessionServiceServer

	options Options
	key     []byte
	stop    context.Context
	end     context.CancelFunc

	mu       sync.RWMutex
	cubes    map[string]*cube
	order    []*cube
	requests map[requestKey]*recorded
	openBulk int64
}

// principal is whom the token authenticates.
const principal = "principals/admin"

// New makes an empty server.
func New(options Options) *Server {
	s := &Server{
		options:  options,
		key:      make([]byte, 32),
		cubes:    map[string]*cube{},
		requests: map[requestKey]*recorded{},
	}
	rand.Read(s.key)
	s.stop, s.end = context.WithCancel(context.Background())
	return s
}

// GRPC makes the gRPC server with everything registered.
func (s *Server) GRPC() (*grpc.Server, error) {
	transport := grpc.NewServer(
		grpc.ForceServerCodecV2(rawCodec{}),
		grpc.MaxRecvMsgSize(maxTransportBytes),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.UnknownServiceHandler(s.unknown),
	)
	alive := health.NewServer()
	for _, service := range services {
		if err := s.register(transport, service); err != nil {
			return nil, err
		}
		alive.SetServingStatus(service.ServiceName, grpc_health_v1.HealthCheckResponse_SERVING)
	}
	grpc_health_v1.RegisterHealthServer(transport, alive)
	reflection.Register(transport)
	return transport, nil
}

// Stop ends open watches with SHUTTING_DOWN, gives calls a moment to finish, and then ends them.
func (s *Server) Stop(transport *grpc.Server) {
	s.end()
	hard := time.AfterFunc(time.Second, transport.Stop)
	transport.GracefulStop()
	hard.Stop()
}

// incident logs a fault of the server under an id that the caller is told.
func incident(id string, method string, fault any, stack []byte) {
	log.Printf("incident %s in %s: %v\n%s", id, method, fault, stack)
}
