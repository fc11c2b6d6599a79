package mip

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "mip.example/peer/gen/mip/v1"
)

func words(text string) *pb.Memory {
	return &pb.Memory{Payload: &pb.Memory_Plaintext{Plaintext: &pb.Plaintext{Text: text}}}
}

func TestLimits(t *testing.T) {
	add := func(memories ...*pb.Memory) proto.Message {
		return &pb.AddMemoriesRequest{Parent: "cubes/c", Memories: memories}
	}
	long := words("x")
	long.Tags = []string{"ok", strings.Repeat("é", 65)} // 130 bytes of UTF-8.
	labelled := words("x")
	labelled.Labels = []*pb.Label{{Key: "1st"}}
	dated := words("x")
	dated.ValidFrom = &timestamppb.Timestamp{Nanos: 1_000_000_000}
	sized := &pb.Memory{Payload: &pb.Memory_Activation{Activation: &pb.Activation{
		ModelFingerprint: "f", Blobs: []*pb.BlobRef{{Digest: "sha256:" + strings.Repeat("0", 64), Size: -1}},
	}}}
	described := words("x")
	described.AttributesJson = "{"
	for want, request := range map[string]proto.Message{
		"FIELD_REQUIRED parent":                              &pb.AddMemoriesRequest{},
		"FIELD_REQUIRED memories":                            add(),
		"FIELD_REQUIRED memories[1].plaintext.text":          add(words("x"), words("")),
		"FIELD_TOO_LARGE memories[0].plaintext.text":         add(words(strings.Repeat("x", 262145))),
		"FIELD_TOO_LARGE memories[0].tags[1]":                add(long),
		"TOO_MANY_ITEMS memories":                            add(make([]*pb.Memory, 1001)...),
		"INVALID_FIELD memories[0].labels[0].key":            add(labelled),
		"INVALID_FIELD memories[0].valid_from":               add(dated),
		"INVALID_FIELD memories[0].activation.blobs[0].size": add(sized),
		"INVALID_JSON memories[0].attributes_json":           add(described),
		"INVALID_NAME name":                                  &pb.GetCubeRequest{Name: "cubes/c\n"},
		"INVALID_NAME parent":                                &pb.ListCommitChangesRequest{Parent: "cubes/c/commits/9223372036854775808"},
		"INVALID_FIELD request_id":                           &pb.CreateCubeRequest{RequestId: "4c0f6a3e58a14a7e9d0b0a4d7b2f9c11"},
		"INVALID_FIELD page_size":                            &pb.ListCubesRequest{PageSize: -1},
		"FIELD_REQUIRED to_revision":                         &pb.RollbackCubeRequest{Name: "cubes/c"},
		"INVALID_FIELD to_revision":                          &pb.RollbackCubeRequest{Name: "cubes/c", ToRevision: -1},
		"FIELD_REQUIRED memory":                              &pb.UpdateMemoryRequest{},
		"INVALID_NAME names[0]":                              &pb.DeleteMemoriesRequest{Parent: "cubes/c", Names: []string{"cubes/c/memories/.a"}},
		"FIELD_REQUIRED names[1]":                            &pb.DeleteMemoriesRequest{Parent: "cubes/c", Names: []string{"cubes/c/memories/a", ""}},
		"FIELD_REQUIRED memory.extension.type":               &pb.UpdateMemoryRequest{Memory: &pb.Memory{Payload: &pb.Memory_Extension{Extension: &pb.Extension{}}}},
	} {
		var refusal *Error
		if err := Check(request, "", ""); !errors.As(err, &refusal) {
			t.Errorf("%s: got %v", want, err)
		} else if got := Name(refusal.Reason, "ERROR_REASON_") + " " + refusal.Field; got != want {
			t.Errorf("got %s, want %s", got, want)
		} else if refusal.GRPCStatus().Code() != codes.InvalidArgument || len(refusal.GRPCStatus().Details()) != 2 {
			t.Errorf("%s: status %v", want, refusal.GRPCStatus())
		}
	}
	for _, request := range []proto.Message{
		add(words(strings.Repeat("x", 262144))),
		&pb.ListCommitChangesRequest{Parent: "cubes/c/commits/9223372036854775807"},
		&pb.SearchMemoriesRequest{Cubes: []string{"cubes/c"}, Input: &pb.SearchMemoriesRequest_Query{}},
	} {
		if err := Check(request, "", ""); err != nil {
			t.Errorf("%v: %v", request.ProtoReflect().Descriptor().Name(), err)
		}
	}
	if err := Check(&pb.UpdateMemoryRequest{Memory: words("")}, "", "memory.plaintext.text"); err != nil {
		t.Error(err)
	}
}

func TestEveryReasonHasItsCode(t *testing.T) {
	values := pb.ErrorReason(0).Descriptor().Values()
	for i := 1; i < values.Len(); i++ { // The first one is never sent.
		reason := pb.ErrorReason(values.Get(i).Number())
		if code := Refuse(reason, "x").GRPCStatus().Code(); code == codes.OK || code == codes.Unknown {
			t.Errorf("%v has the code %v", reason, code)
		}
	}
	if got := Refuse(pb.ErrorReason_ERROR_REASON_DATA_CORRUPT, "x").GRPCStatus().Code(); got != codes.DataLoss {
		t.Errorf("got %v", got)
	}
}

func TestTransitions(t *testing.T) {
	states := "ACTIVE MERGED ARCHIVED DELETED PURGED"
	permitted := map[string]string{
		"ACTIVE": "ARCHIVED DELETED", "MERGED": "ACTIVE ARCHIVED DELETED", "ARCHIVED": "ACTIVE DELETED", "DELETED": "ACTIVE ARCHIVED",
	}
	for _, from := range strings.Fields(states) {
		for _, to := range strings.Fields(states) {
			want := strings.Contains(" "+permitted[from]+" ", " "+to+" ")
			got := MayTransition(pb.MemoryState(pb.MemoryState_value["MEMORY_STATE_"+from]), pb.MemoryState(pb.MemoryState_value["MEMORY_STATE_"+to]))
			if got != want {
				t.Errorf("%s to %s: %v", from, to, got)
			}
		}
	}
}
