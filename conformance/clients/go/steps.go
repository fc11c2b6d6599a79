package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	mip "mip.example/flow/gen/mip/v1"
)

const (
	tea     = "Ada prefers tea to coffee."
	release = "The release is on Friday."
	coffee  = "Ada drinks coffee since March."
)

// steps is the core flow, in its order.
var steps = []step{
	{"GetCapabilities", "", (*flow).getCapabilities},
	{"CreateCube", "", (*flow).createCube},
	{"AddMemories", "", (*flow).addMemories},
	{"AddMemories again with the same request_id", "", (*flow).addAgain},
	{"GetMemory", "", (*flow).getMemory},
	{"SearchMemories by words", "search.lexical", (*flow).search},
	{"UpdateMemory with the etag", "", (*flow).update},
	{"UpdateMemory with a stale etag", "", (*flow).updateStale},
	{"ListMemories page by page", "", (*flow).listPages},
	{"WatchCube from revision 1", "history", (*flow).watch},
	{"RollbackCube", "history", (*flow).rollBack},
	{"VerifyCube", "history", (*flow).verify},
	{"WriteBlob and ReadBlob", "mip.v1.BlobService", (*flow).blob},
	{"DeleteMemories", "", (*flow).deleteMemories},
	{"PurgeMemories", "", (*flow).purgeMemories},
	{"DeleteCube", "", (*flow).deleteCube},
	{"PurgeCube", "", (*flow).purgeCube},
}

func (f *flow) getCapabilities(ctx context.Context) error {
	got, err := f.server.GetCapabilities(ctx, &mip.GetCapabilitiesRequest{})
	if err != nil {
		return err
	}
	if got.ProtocolVersion == "" {
		return fmt.Errorf("protocol_version is empty")
	}
	f.declared = slices.Concat(got.Levels, got.Services, got.Features)
	for _, needed := range []string{"core", "mip.v1.CubeService", "mip.v1.MemoryService"} {
		if !slices.Contains(f.declared, needed) {
			return fmt.Errorf("%s is not declared", needed)
		}
	}
	return nil
}

func (f *flow) createCube(ctx context.Context) error {
	got, err := f.cubes.CreateCube(ctx, &mip.CreateCubeRequest{
		CubeId:    strings.TrimPrefix(f.cube, "cubes/"),
		Cube:      &mip.Cube{DisplayName: "Core flow"},
		RequestId: f.requestID(1),
	})
	if err != nil {
		return err
	}
	return all(
		equal("cube.name", got.GetCube().GetName(), f.cube),
		equal("cube.display_name", got.GetCube().GetDisplayName(), "Core flow"),
		equal("commit.revision", got.GetCommit().GetRevision(), 1),
	)
}

func plaintext(text string) *mip.Memory {
	return &mip.Memory{Payload: &mip.Memory_Plaintext{Plaintext: &mip.Plaintext{Text: text}}}
}

func (f *flow) addMemories(ctx context.Context) error {
	f.add = &mip.AddMemoriesRequest{
		Parent:    f.cube,
		Memories:  []*mip.Memory{plaintext(tea), plaintext(release)},
		RequestId: f.requestID(2),
	}
	got, err := f.memories.AddMemories(ctx, f.add)
	if err != nil {
		return err
	}
	if err := equal("the number of memories", len(got.Memories), 2); err != nil {
		return err
	}
	f.first, f.second = got.Memories[0].Name, got.Memories[1].Name
	for _, name := range []string{f.first, f.second} {
		if !strings.HasPrefix(name, f.cube+"/memories/") {
			return fmt.Errorf("a memory of %s is named %q", f.cube, name)
		}
	}
	if f.first == f.second {
		return fmt.Errorf("both memories are named %s", f.first)
	}
	return all(
		equal("memories[0].plaintext.text", got.Memories[0].GetPlaintext().GetText(), tea),
		equal("memories[1].plaintext.text", got.Memories[1].GetPlaintext().GetText(), release),
		equal("commit.revision", got.GetCommit().GetRevision(), 2),
	)
}

func (f *flow) addAgain(ctx context.Context) error {
	got, err := f.memories.AddMemories(ctx, f.add)
	if err != nil {
		return err
	}
	return all(
		equal("the names", names(got.Memories), f.first+" "+f.second),
		equal("commit.revision", got.GetCommit().GetRevision(), 2),
	)
}

func (f *flow) getMemory(ctx context.Context) error {
	got, err := f.memories.GetMemory(ctx, &mip.GetMemoryRequest{Name: f.first})
	if err != nil {
		return err
	}
	if f.etag = got.GetMemory().GetEtag(); f.etag == "" {
		return fmt.Errorf("the etag is empty")
	}
	return all(
		equal("memory.name", got.Memory.Name, f.first),
		equal("memory.plaintext.text", got.Memory.GetPlaintext().GetText(), tea),
		equal("memory.state", got.Memory.State, mip.MemoryState_MEMORY_STATE_ACTIVE),
	)
}

func (f *flow) search(ctx context.Context) error {
	got, err := f.memories.SearchMemories(ctx, &mip.SearchMemoriesRequest{
		Cubes: []string{f.cube},
		Input: &mip.SearchMemoriesRequest_Query{Query: "tea"},
		Mode:  mip.SearchMode_SEARCH_MODE_LEXICAL,
	})
	if err != nil {
		return err
	}
	if err := equal("the number of hits", len(got.Hits), 1); err != nil {
		return err
	}
	return equal("hits[0].memory.name", got.Hits[0].GetMemory().GetName(), f.first)
}

// change asks to give the first memory another text, if its etag is still the one that was read.
func (f *flow) change(text string, number int) *mip.UpdateMemoryRequest {
	memory := plaintext(text)
	memory.Name, memory.Etag = f.first, f.etag
	return &mip.UpdateMemoryRequest{
		Memory:     memory,
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"plaintext.text"}},
		RequestId:  f.requestID(number),
	}
}

func (f *flow) update(ctx context.Context) error {
	got, err := f.memories.UpdateMemory(ctx, f.change(coffee, 3))
	if err != nil {
		return err
	}
	if got.GetMemory().GetEtag() == f.etag {
		return fmt.Errorf("the etag did not change")
	}
	return all(
		equal("memory.plaintext.text", got.GetMemory().GetPlaintext().GetText(), coffee),
		equal("commit.revision", got.GetCommit().GetRevision(), 3),
	)
}

func (f *flow) updateStale(ctx context.Context) error {
	_, err := f.memories.UpdateMemory(ctx, f.change(release, 4))
	if err := refused(err, codes.Aborted, "ETAG_MISMATCH"); err != nil {
		return err
	}
	got, err := f.cubes.GetCube(ctx, &mip.GetCubeRequest{Name: f.cube})
	if err != nil {
		return err
	}
	return equal("cube.revision", got.GetCube().GetRevision(), 3)
}

// listPages pages one by one. A page may be empty before the end, and the end may be found only on one that is.
func (f *flow) listPages(ctx context.Context) error {
	var listed []*mip.Memory
	request := &mip.ListMemoriesRequest{Parent: f.cube, PageSize: 1}
	for pages := 1; ; pages++ {
		got, err := f.memories.ListMemories(ctx, request)
		if err != nil {
			return err
		}
		if len(got.Memories) > 1 || pages > 10 {
			return fmt.Errorf("page %d holds %d memories", pages, len(got.Memories))
		}
		listed = append(listed, got.Memories...)
		if request.PageToken = got.NextPageToken; request.PageToken == "" {
			return equal("the names of all pages", names(listed), f.first+" "+f.second)
		}
	}
}

func (f *flow) rollBack(ctx context.Context) error {
	rolled, err := f.cubes.RollbackCube(ctx, &mip.RollbackCubeRequest{
		Name: f.cube, ToRevision: 2, RequestId: f.requestID(5),
	})
	if err != nil {
		return err
	}
	f.rollback = rolled.GetCommit()
	got, err := f.memories.GetMemory(ctx, &mip.GetMemoryRequest{Name: f.first})
	if err != nil {
		return err
	}
	return all(
		equal("commit.revision", f.rollback.GetRevision(), 4),
		equal("memory.plaintext.text", got.GetMemory().GetPlaintext().GetText(), tea),
		equal("memory.state", got.GetMemory().GetState(), mip.MemoryState_MEMORY_STATE_ACTIVE),
	)
}

func (f *flow) verify(ctx context.Context) error {
	got, err := f.cubes.VerifyCube(ctx, &mip.VerifyCubeRequest{
		Name: f.cube, ExpectedRevision: f.rollback.Revision, ExpectedHeadDigest: f.rollback.Digest,
	})
	if err != nil {
		return err
	}
	return all(
		equal("valid", got.Valid, true),
		equal("the number of findings", len(got.Findings), 0),
		equal("head_revision", got.HeadRevision, 4),
		equal("head_digest", string(got.HeadDigest), string(f.rollback.Digest)),
	)
}

func (f *flow) deleteMemories(ctx context.Context) error {
	_, err := f.memories.DeleteMemories(ctx, &mip.DeleteMemoriesRequest{
		Parent: f.cube, Names: []string{f.first, f.second}, RequestId: f.requestID(6),
	})
	if err != nil {
		return err
	}
	got, err := f.memories.GetMemory(ctx, &mip.GetMemoryRequest{Name: f.first})
	if err != nil {
		return err
	}
	listed, err := f.memories.ListMemories(ctx, &mip.ListMemoriesRequest{Parent: f.cube})
	if err != nil {
		return err
	}
	return all(
		equal("memory.state", got.GetMemory().GetState(), mip.MemoryState_MEMORY_STATE_DELETED),
		equal("the listed memories", names(listed.Memories), ""),
		equal("next_page_token", listed.NextPageToken, ""),
	)
}

func (f *flow) purgeMemories(ctx context.Context) error {
	purged, err := f.memories.PurgeMemories(ctx, &mip.PurgeMemoriesRequest{
		Parent: f.cube, Names: []string{f.first, f.second}, Reason: "the core flow ends", RequestId: f.requestID(7),
	})
	if err != nil {
		return err
	}
	got, err := f.memories.GetMemory(ctx, &mip.GetMemoryRequest{Name: f.first})
	if err != nil {
		return err
	}
	return all(
		equal("memory.state", got.GetMemory().GetState(), mip.MemoryState_MEMORY_STATE_PURGED),
		equal("memory.plaintext.text", got.GetMemory().GetPlaintext().GetText(), ""),
		equal("memory.revision", got.GetMemory().GetRevision(), purged.GetCommit().GetRevision()),
	)
}

func (f *flow) deleteCube(ctx context.Context) error {
	got, err := f.cubes.DeleteCube(ctx, &mip.DeleteCubeRequest{Name: f.cube, RequestId: f.requestID(8)})
	if err != nil {
		return err
	}
	_, err = f.memories.ListMemories(ctx, &mip.ListMemoriesRequest{Parent: f.cube})
	return all(
		equal("cube.state", got.GetCube().GetState(), mip.MemoryState_MEMORY_STATE_DELETED),
		refused(err, codes.FailedPrecondition, "CUBE_DELETED"),
	)
}

func (f *flow) purgeCube(ctx context.Context) error {
	got, err := f.cubes.PurgeCube(ctx, &mip.PurgeCubeRequest{
		Name: f.cube, Reason: "the core flow ends", RequestId: f.requestID(9),
	})
	if err != nil {
		return err
	}
	return equal("cube.state", got.GetCube().GetState(), mip.MemoryState_MEMORY_STATE_PURGED)
}
