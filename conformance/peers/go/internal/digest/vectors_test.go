package digest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	pb "mip.example/peer/gen/mip/v1"
)

type contents struct {
	Contents []struct {
		Shows         string          `json:"shows"`
		Message       string          `json:"message"`
		JSON          json.RawMessage `json:"json"`
		Payload       string          `json:"payload"`
		ContentDigest string          `json:"content_digest"`
		Salt          string          `json:"salt"`
		Commitment    string          `json:"commitment"`
	} `json:"contents"`
}

type commits struct {
	NoChangesDigest string `json:"no_changes_digest"`
	Commits         []struct {
		Revision   int64           `json:"revision"`
		HeaderJSON json.RawMessage `json:"header_json"`
		Changes    []struct {
			JSON   json.RawMessage `json:"json"`
			Bytes  string          `json:"bytes"`
			Digest string          `json:"digest"`
		} `json:"changes"`
		ChangesDigest string `json:"changes_digest"`
		Header        string `json:"header"`
		CommitDigest  string `json:"commit_digest"`
	} `json:"commits"`
}

func load(t *testing.T, name string, into any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "vectors", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	data, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func equal(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	if hex.EncodeToString(got) != want {
		t.Errorf("%s: got %x, want %s", what, got, want)
	}
}

func parse(t *testing.T, name string, text []byte) proto.Message {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		t.Fatal(err)
	}
	message := kind.New().Interface()
	if err := protojson.Unmarshal(text, message); err != nil {
		t.Fatal(err)
	}
	return message
}

func TestContentVectors(t *testing.T) {
	var vectors contents
	load(t, "contents.json", &vectors)
	if len(vectors.Contents) == 0 {
		t.Fatal("no vectors")
	}
	for _, v := range vectors.Contents {
		payload, salt := unhex(t, v.Payload), unhex(t, v.Salt)
		equal(t, v.Shows+": content digest", Content(payload), v.ContentDigest)
		equal(t, v.Shows+": commitment", Commitment(salt, payload), v.Commitment)

		// The payload parses and serializes as itself, unknown fields included. The specification asks for no such thing of
		// two programs; it shows that this one writes the known fields in the order of their numbers.
		parsed := parse(t, v.Message, []byte("{}"))
		if err := proto.Unmarshal(payload, parsed); err != nil {
			t.Fatalf("%s: %v", v.Shows, err)
		}
		equal(t, v.Shows+": serialized again", Serialize(parsed), v.Payload)
		parsed.ProtoReflect().SetUnknown(nil)
		if want := parse(t, v.Message, v.JSON); !proto.Equal(parsed, want) {
			t.Errorf("%s: parses as %v, want %v", v.Shows, parsed, want)
		}
	}
}

func TestCommitVectors(t *testing.T) {
	var vectors commits
	load(t, "commits.json", &vectors)
	if len(vectors.Commits) == 0 {
		t.Fatal("no vectors")
	}
	equal(t, "no changes", Changes(nil), vectors.NoChangesDigest)
	var before *pb.CommitHeader
	var parent []byte
	for _, v := range vectors.Commits {
		var changes [][]byte
		for _, c := range v.Changes {
			data := unhex(t, c.Bytes)
			equal(t, "change", Change(data), c.Digest)
			change := parse(t, "mip.v1.Change", c.JSON)
			equal(t, "change from JSON", Serialize(change), c.Bytes)
			changes = append(changes, data)
		}
		equal(t, "changes", Changes(changes), v.ChangesDigest)
		sealed := unhex(t, v.Header)
		equal(t, "commit", Commit(sealed), v.CommitDigest)
		header := new(pb.CommitHeader)
		if err := proto.Unmarshal(sealed, header); err != nil {
			t.Fatal(err)
		}
		if want := parse(t, "mip.v1.CommitHeader", v.HeaderJSON); !proto.Equal(header, want) {
			t.Errorf("header parses as %v, want %v", header, want)
		}
		equal(t, "header from JSON", Serialize(header), v.Header)
		if err := Link(header, before, parent, changes); err != nil {
			t.Errorf("revision %d: %v", v.Revision, err)
		}
		before, parent = header, Commit(sealed)
	}
}

func TestLinkFindsWhatDoesNotFit(t *testing.T) {
	var vectors commits
	load(t, "commits.json", &vectors)
	first, second := new(pb.CommitHeader), new(pb.CommitHeader)
	sealed := unhex(t, vectors.Commits[0].Header)
	if proto.Unmarshal(sealed, first) != nil || proto.Unmarshal(unhex(t, vectors.Commits[1].Header), second) != nil {
		t.Fatal("the vectors do not parse")
	}
	var changes [][]byte
	for _, c := range vectors.Commits[1].Changes {
		changes = append(changes, unhex(t, c.Bytes))
	}
	for what, spoil := range map[string]func(h *pb.CommitHeader){
		"revision": func(h *pb.CommitHeader) { h.Revision++ },
		"cube":     func(h *pb.CommitHeader) { h.CubeUid = "another" },
		"parent":   func(h *pb.CommitHeader) { h.ParentDigest = bytes.Repeat([]byte{1}, 32) },
		"time":     func(h *pb.CommitHeader) { h.CreateTime = first.CreateTime },
		"count":    func(h *pb.CommitHeader) { h.ChangeCount-- },
		"digest":   func(h *pb.CommitHeader) { h.ChangesDigest = nil },
	} {
		header := proto.Clone(second).(*pb.CommitHeader)
		spoil(header)
		if Link(header, first, Commit(sealed), changes) == nil {
			t.Errorf("a wrong %s was not found", what)
		}
	}
	if err := Link(second, first, Commit(sealed), changes); err != nil {
		t.Error(err)
	}
}
