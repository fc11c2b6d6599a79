package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	mip "mip.example/flow/gen/mip/v1"
)

const (
	// frameBytes is the most that a data frame may hold (MIP-STRM-021, MIP-STRM-030).
	frameBytes = 1 << 20
	// blobBytes is more than one frame may hold, and no whole number of frames.
	blobBytes = 5 << 19
)

// watch reads the commits 1 to 3, whole and in order, and then ends the stream.
func (f *flow) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := f.cubes.WatchCube(ctx, &mip.WatchCubeRequest{Name: f.cube, StartRevision: 1})
	if err != nil {
		return err
	}
	var whole, begun int64
	for whole < 3 {
		received, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("after %d whole commits: %w", whole, err)
		}
		switch frame := received.Frame.(type) {
		case *mip.WatchCubeResponse_Commit:
			if begun != 0 || frame.Commit.Revision != whole+1 {
				return fmt.Errorf("commit %d begins after %d whole commits", frame.Commit.Revision, whole)
			}
			begun = frame.Commit.Revision
			if err := equal("the commit's name", frame.Commit.Name, fmt.Sprintf("%s/commits/%d", f.cube, begun)); err != nil {
				return err
			}
		case *mip.WatchCubeResponse_Changes_:
			if begun == 0 {
				return fmt.Errorf("changes outside a commit after %d whole commits", whole)
			}
		case *mip.WatchCubeResponse_End_:
			if begun == 0 || frame.End.Revision != begun {
				return fmt.Errorf("commit %d ends after %d whole commits", frame.End.Revision, whole)
			}
			whole, begun = begun, 0
		case *mip.WatchCubeResponse_Heartbeat_:
			if begun != 0 {
				return fmt.Errorf("a heartbeat within commit %d", begun)
			}
		default:
			return fmt.Errorf("a frame of another kind after %d whole commits: %T", whole, frame)
		}
	}
	return nil
}

// blob writes random bytes and reads them back.
func (f *flow) blob(ctx context.Context) error {
	content := make([]byte, blobBytes)
	if _, err := rand.Read(content); err != nil {
		return err
	}
	digest := digestOf(content)
	if err := f.writeBlob(ctx, content, digest); err != nil {
		return fmt.Errorf("WriteBlob: %w", err)
	}
	read, err := f.readBlob(ctx, digest)
	if err != nil {
		return fmt.Errorf("ReadBlob: %w", err)
	}
	if !bytes.Equal(read, content) {
		return fmt.Errorf("%d bytes with %s were read, not %d with %s", len(read), digestOf(read), len(content), digest)
	}
	return nil
}

func digestOf(content []byte) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256(content))
}

func (f *flow) writeBlob(ctx context.Context, content []byte, digest string) error {
	stream, err := f.blobs.WriteBlob(ctx)
	if err != nil {
		return err
	}
	header := &mip.BlobHeader{Parent: f.cube, Digest: digest, Size: int64(len(content))}
	frames := []*mip.WriteBlobRequest{{Frame: &mip.WriteBlobRequest_Header{Header: header}}}
	for offset := 0; offset < len(content); offset += frameBytes {
		data := &mip.BlobData{Offset: int64(offset), Data: content[offset:min(offset+frameBytes, len(content))]}
		frames = append(frames, &mip.WriteBlobRequest{Frame: &mip.WriteBlobRequest_Data{Data: data}})
	}
	frames = append(frames, &mip.WriteBlobRequest{Frame: &mip.WriteBlobRequest_Finish{Finish: true}})
	for _, frame := range frames {
		// EOF says that the server has answered already; CloseAndRecv returns how.
		if err := stream.Send(frame); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	got, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	return all(equal("digest", got.Digest, digest), equal("size", got.Size, int64(len(content))))
}

func (f *flow) readBlob(ctx context.Context, digest string) ([]byte, error) {
	stream, err := f.blobs.ReadBlob(ctx, &mip.ReadBlobRequest{Parent: f.cube, Digest: digest})
	if err != nil {
		return nil, err
	}
	begun, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	header := begun.GetHeader()
	if header == nil {
		return nil, fmt.Errorf("the first frame is no header: %T", begun.Frame)
	}
	var content []byte
	for {
		received, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return content, all(
				equal("header.digest", header.Digest, digest),
				equal("header.size", header.Size, int64(len(content))),
				equal("header.offset", header.Offset, 0),
			)
		}
		if err != nil {
			return nil, err
		}
		data := received.GetData()
		if data == nil || data.Offset != int64(len(content)) || len(data.Data) > frameBytes {
			return nil, fmt.Errorf("a frame does not go on at byte %d", len(content))
		}
		content = append(content, data.Data...)
	}
}
