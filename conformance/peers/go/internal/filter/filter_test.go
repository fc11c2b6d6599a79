package filter

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "mip.example/peer/gen/mip/v1"
)

func sample() *pb.Memory {
	return &pb.Memory{
		Payload:        &pb.Memory_Plaintext{Plaintext: &pb.Plaintext{Text: "An Espresso after lunch", Language: "en-GB", Kind: "fact"}},
		Tags:           []string{"home", "work"},
		Labels:         []*pb.Label{{Key: "empty"}, {Key: "team", Value: "red"}, {Key: "team/size", Value: "5"}},
		AttributesJson: `{"author":{"name":"Ana"},"done":false,"list":[1,"two",null],"none":null,"s":"5","year":2020}`,
		Provenance: []*pb.Provenance{
			{Kind: pb.ProvenanceKind_PROVENANCE_KIND_MESSAGE, Source: "m7", Speaker: "Bo"},
			{Kind: pb.ProvenanceKind_PROVENANCE_KIND_DOCUMENT, Source: "notes/a.md"},
		},
		ValidFrom:   timestamppb.New(time.Date(2026, 5, 1, 12, 0, 0, 5, time.UTC)),
		Confidence:  proto.Float64(0.5),
		Session:     "cubes/c/sessions/s1",
		Name:        "cubes/c/memories/m1",
		Revision:    7,
		State:       pb.MemoryState_MEMORY_STATE_ACTIVE,
		Sensitivity: pb.Sensitivity_SENSITIVITY_INTERNAL,
		Owner:       "principals/ana",
		CreateTime:  timestamppb.New(time.Date(2026, 5, 2, 0, 0, 0, 0, time.UTC)),
	}
}

func check(t *testing.T, text string, want bool) {
	t.Helper()
	parsed, err := Parse(text)
	if err != nil {
		t.Errorf("%s: %v at %d", text, err, err.Position)
		return
	}
	if parsed.Passes(sample()) != want {
		t.Errorf("%s: got %v", text, !want)
	}
}

func TestPasses(t *testing.T) {
	for _, text := range []string{
		``, ` `, `state = ACTIVE`, `state != DELETED`, `tags:work`, `tags:"work"`, `tags:*`, `labels.team = red`, `labels:team`,
		`labels.empty:*`, `labels.empty = ""`, `labels."team/size" = 5`, `labels:*`, `labels.absent != x`, `NOT labels.absent:*`,
		`attributes.author.name = "Ana"`, `attributes.year >= 2020`, `attributes.year = 2.02e3`, `attributes.s = "5"`,
		`attributes.s != 5`, `attributes.done = false`, `attributes.none = null`, `attributes.none:*`, `attributes.list:1`,
		`attributes.list:two`, `attributes.list:null`, `attributes.author:name`, `attributes.s:"5"`,
		`session = s1`, `session = cubes/c/sessions/s1`, `session:*`, `owner = principals/ana`, `sensitivity <= INTERNAL`,
		`sensitivity > PUBLIC`, `kind:fact`, `language = EN-gb`, `media_type = text/plain`, `media_type:*`, `payload = plaintext`,
		`create_time > 2026-05-01`, `create_time = 2026-05-02`, `valid_from > 2026-05-01T12:00:00.000000004Z`,
		`valid_from <= 2026-05-01T14:00:00.000000005+02:00`, `NOT valid_until:*`, `valid_until != 2020-01-01`,
		`confidence >= 0.5`, `confidence:0.5`, `revision = 7`, `id = m1`, `name = "cubes/c/memories/m1"`,
		`provenance.source = notes/a.md`, `provenance.speaker:Bo`, `provenance.kind = DOCUMENT`, `text:"ESPRESSO AFTER"`, `text:*`,
		`tags:work tags:home`, `tags:none OR tags:home AND kind = fact`, `-tags:none`, `NOT (tags:none OR tags:nope)`,
		`(tags:work) -tags:none`, `tags:none AND tags:none OR NOT tags:none AND NOT tags:none OR tags:work` + ` OR tags:home`,
	} {
		if strings.HasPrefix(text, "tags:none AND") {
			check(t, text, false) // OR binds tighter: tags:none AND (…) AND (…).
			continue
		}
		check(t, text, true)
	}
}

func TestFails(t *testing.T) {
	for _, text := range []string{
		`state = MERGED`, `tags:wor`, `labels.team = blue`, `labels:absent`, `attributes.author = Ana`, `attributes.s = 5`,
		`attributes.year = "2020"`, `attributes.year.x:*`, `attributes.done = "false"`, `attributes.s < 6`, `attributes.absent != 1 AND tags:x`,
		`valid_until < 2099-01-01`, `valid_until > 1970-01-01`, `text:tea`, `kind = Fact`, `provenance.source != m7`,
		`provenance.kind = TOOL`, `sensitivity >= CONFIDENTIAL`, `tags:work AND tags:none`, `session = s2`, `id = M1`,
	} {
		check(t, text, false)
	}
}

func TestRefused(t *testing.T) {
	for text, position := range map[string]int{
		`stat = ACTIVE`:            1,
		`state = FOO`:              9,
		`state:ACTIVE`:             1,
		`state < ACTIVE`:           1,
		`tags = work`:              1,
		`tags`:                     5,
		`tags:`:                    6,
		`tags:x AND`:               11,
		`AND tags:x`:               5,
		`(tags:x`:                  8,
		`tags:x)`:                  7,
		`NOT NOT tags:x`:           9,
		`tags:"x`:                  6,
		`attributes:author`:        1,
		`é = 1`:                    1,
		`tags:"é" AND bad:1`:       14,
		`revision = many`:          12,
		`revision:7`:               1,
		`confidence > "0.5"`:       14,
		`create_time > soon`:       15,
		`sensitivity:PUBLIC`:       1,
		`attributes = 1`:           1,
		`attributes.x < true`:      16,
		`attributes.x = 1e400`:     16,
		`create_time > 2026-13-01`: 15,
		`provenance:*`:             1,
		`tags = *`:                 8,
		`payload = words`:          11,
		`labels < 1`:               1,
	} {
		_, err := Parse(text)
		if err == nil {
			t.Errorf("%s was accepted", text)
		} else if err.Position != position {
			t.Errorf("%s: position %d, want %d (%v)", text, err.Position, position, err)
		}
	}
}

func TestBounds(t *testing.T) {
	if _, err := Parse(strings.Repeat("tags:x ", MaxComparisons)); err != nil {
		t.Errorf("%d comparisons: %v", MaxComparisons, err)
	}
	if _, err := Parse(strings.Repeat("tags:x ", MaxComparisons+1)); err == nil {
		t.Errorf("%d comparisons were accepted", MaxComparisons+1)
	}
	nested := func(depth int) string { return strings.Repeat("(", depth) + "tags:x" + strings.Repeat(")", depth) }
	if _, err := Parse(nested(MaxDepth)); err != nil {
		t.Errorf("%d levels: %v", MaxDepth, err)
	}
	if _, err := Parse(nested(MaxDepth + 1)); err == nil {
		t.Errorf("%d levels were accepted", MaxDepth+1)
	}
	if _, err := Parse("NOT " + nested(MaxDepth)); err == nil {
		t.Error("NOT does not count as a level")
	}
}

func TestNumbersTimesAndTexts(t *testing.T) {
	for _, text := range []string{
		`labels.x = 5.5.5`, `labels.x = 5e`, `labels.x = 2026-05-01x`, `labels.x = 1-2`, `labels.x = a+b`, `labels.x = AND`,
		`labels.x = NOT`, `labels.NOT = 1`, `labels . x = 1`, `labels.x=-5 -labels.y=1`, `labels.a.b = 1`, `labels.2020:*`,
	} {
		if _, err := Parse(text); err != nil {
			t.Errorf("%s: %v at %d", text, err, err.Position)
		}
	}
}
