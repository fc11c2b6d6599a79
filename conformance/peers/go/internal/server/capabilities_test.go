package server

import (
	"context"
	"slices"
	"testing"

	pb "mip.example/peer/gen/mip/v1"
)

// MIP-VERS-007: nobody takes the record for durable.
func TestTheRecordIsSaidNotToBeDurable(t *testing.T) {
	told := must(New(Options{}).GetCapabilities(context.Background(), &pb.GetCapabilitiesRequest{}))(t)
	if !slices.Contains(told.Notices, "everything is kept in memory and lost when the process ends") {
		t.Errorf("notices %q", told.Notices)
	}
}
