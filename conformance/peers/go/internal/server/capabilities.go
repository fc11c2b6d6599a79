package server

import (
	"context"

	pb "mip.example/peer/gen/mip/v1"
)

// Version is the version of this software.
const Version = "0.1.0"

// GetCapabilities returns what the server declares.
func (s *Server) GetCapabilities(context.Context, *pb.GetCapabilitiesRequest) (*pb.GetCapabilitiesResponse, error) {
	var names []string
	for _, service := range services {
		names = append(names, service.ServiceName)
	}
	return &pb.GetCapabilitiesResponse{
		ProtocolVersion: "1.0-alpha",
		ServerName:      "mip-go-peer",
		ServerVersion:   Version,
		Services:        names,
		Features:        []string{"search.lexical", "search.vector", "search.as_of"},
		Payloads:        []string{"plaintext", "activation", "parametric", "extension"},
		UnknownFields:   pb.UnknownFields_UNKNOWN_FIELDS_KEPT,
		Limits: &pb.Limits{
			MaxRequestBytes:           maxRequestBytes,
			MaxResponseBytes:          maxResponseBytes,
			MaxBatchMemories:          maxBatchMemories,
			MaxPageSize:               maxPageSize,
			MaxTopK:                   maxTopK,
			RequestIdRetentionSeconds: 7 * 24 * 3600,
			MaxSearchCubes:            maxSearchCubes,
			MaxBulkMemories:           maxBulkMemories,
			MaxBulkBytes:              maxBulkBytes,
		},
		Audience: "mip-go-peer",
		Notices: []string{
			"everything is kept in memory and lost when the process ends",
			"there is no embedder: callers send vectors",
			"memories cannot name blobs: there is no blob store",
		},
		Levels: levels,
	}, nil
}
