// Package digest holds the formulas of docs/spec/digests.md. All of them are over exact bytes: a message is serialized once,
// by Serialize, and never again.
package digest

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "mip.example/peer/gen/mip/v1"
)

// SaltSize is the number of bytes of a salt.
const SaltSize = 32

// NewSalt makes the salt of one content.
func NewSalt() []byte {
	salt := make([]byte, SaltSize)
	rand.Read(salt) // Never fails: crypto/rand ends the program instead.
	return salt
}

// Content is the digest of a payload.
func Content(payload []byte) []byte {
	sum := sha256.Sum256(payload)
	return sum[:]
}

// Commitment commits to a payload: SHA-256(salt || SHA-256(payload)).
func Commitment(salt, payload []byte) []byte {
	sum := sha256.Sum256(append(bytes.Clone(salt), Content(payload)...))
	return sum[:]
}

// Change is the digest of a serialized Change.
func Change(change []byte) []byte { return Content(change) }

// Changes is the digest over the changes of a commit, in their order.
func Changes(changes [][]byte) []byte {
	hash := sha256.New()
	for _, change := range changes {
		hash.Write(Change(change))
	}
	return hash.Sum(nil)
}

// Commit is the digest of a serialized CommitHeader.
func Commit(header []byte) []byte { return Content(header) }

// Link checks a header against its bytes' digests and against the commit before (nil for the first): revision, cube,
// parent, time, the number of changes and their digest. parent is the digest of the commit before.
func Link(header, before *pb.CommitHeader, parent []byte, changes [][]byte) error {
	wantRevision, wantUID := int64(1), header.GetCubeUid()
	if before != nil {
		wantRevision, wantUID = before.GetRevision()+1, before.GetCubeUid()
	}
	switch {
	case header.GetRevision() != wantRevision:
		return errors.New("the revision does not follow the one before")
	case header.GetCubeUid() != wantUID:
		return errors.New("the commit is of another cube")
	case !bytes.Equal(header.GetParentDigest(), parent):
		return errors.New("the parent digest is not that of the commit before")
	case before != nil && header.GetCreateTime().AsTime().Before(Next(before.GetCreateTime()).AsTime()):
		return errors.New("the time is not later than that of the commit before")
	case header.GetChangeCount() != int64(len(changes)):
		return errors.New("the number of changes is another")
	case !bytes.Equal(header.GetChangesDigest(), Changes(changes)):
		return errors.New("the digest of the changes is another")
	}
	return nil
}

// Next is the earliest time of the commit after one: a microsecond later.
func Next(before *timestamppb.Timestamp) *timestamppb.Timestamp {
	return timestamppb.New(before.AsTime().Add(time.Microsecond))
}
