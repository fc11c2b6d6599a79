package filter

import (
	"strings"
	"time"
	"unicode"

	pb "mip.example/peer/gen/mip/v1"
)

// node is a part of a parsed filter.
type node interface {
	passes(m *pb.Memory) bool
}

type all []node

func (a all) passes(m *pb.Memory) bool {
	for _, part := range a {
		if !part.passes(m) {
			return false
		}
	}
	return true
}

type anyOf []node

func (a anyOf) passes(m *pb.Memory) bool {
	for _, part := range a {
		if part.passes(m) {
			return true
		}
	}
	return false
}

type not struct{ inner node }

func (n not) passes(m *pb.Memory) bool { return !n.inner.passes(m) }

type predicate func(m *pb.Memory) bool

func (p predicate) passes(m *pb.Memory) bool { return p(m) }

// Passes says whether a memory passes the filter.
func (f *Filter) Passes(m *pb.Memory) bool { return f.root.passes(m) }

// texts gives the values of a field that holds texts; an empty one where the memory, or a source, lacks the field.
type texts func(m *pb.Memory) []string

func one(get func(m *pb.Memory) string) texts {
	return func(m *pb.Memory) []string { return []string{get(m)} }
}

// fold maps every character to the first of those that differ from it by case alone.
func fold(text string) string {
	return strings.Map(func(char rune) rune {
		least := char
		for next := unicode.SimpleFold(char); next != char; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		return least
	}, text)
}

// Words are the words of a memory's payload.
func Words(m *pb.Memory) string {
	if extension := m.GetExtension(); extension != nil {
		return extension.GetText()
	}
	return m.GetPlaintext().GetText()
}

func session(m *pb.Memory) []string {
	return []string{m.GetSession(), m.GetSession()[strings.LastIndexByte(m.GetSession(), '/')+1:]}
}

func mediaType(m *pb.Memory) string {
	if plaintext := m.GetPlaintext(); plaintext != nil && plaintext.GetMediaType() == "" {
		return "text/plain"
	}
	return m.GetPlaintext().GetMediaType()
}

func payload(m *pb.Memory) string {
	switch m.GetPayload().(type) {
	case *pb.Memory_Plaintext:
		return "plaintext"
	case *pb.Memory_Activation:
		return "activation"
	case *pb.Memory_Parametric:
		return "parametric"
	case *pb.Memory_Extension:
		return "extension"
	}
	return ""
}

func sources(get func(p *pb.Provenance) string) texts {
	return func(m *pb.Memory) []string {
		var found []string
		for _, p := range m.GetProvenance() {
			found = append(found, get(p))
		}
		return found
	}
}

func sourceKind(p *pb.Provenance) string {
	if p.GetKind() == pb.ProvenanceKind_PROVENANCE_KIND_UNSPECIFIED {
		return ""
	}
	return strings.TrimPrefix(p.GetKind().String(), "PROVENANCE_KIND_")
}

// times gives a time where the memory has it.
var times = map[string]func(m *pb.Memory) (time.Time, bool){
	"create_time": func(m *pb.Memory) (time.Time, bool) { return m.GetCreateTime().AsTime(), m.CreateTime != nil },
	"update_time": func(m *pb.Memory) (time.Time, bool) { return m.GetUpdateTime().AsTime(), m.UpdateTime != nil },
	"valid_from":  func(m *pb.Memory) (time.Time, bool) { return m.GetValidFrom().AsTime(), m.ValidFrom != nil },
	"valid_until": func(m *pb.Memory) (time.Time, bool) { return m.GetValidUntil().AsTime(), m.ValidUntil != nil },
}

// numbers gives a number where the memory has it.
var numbers = map[string]func(m *pb.Memory) (float64, bool){
	"confidence": func(m *pb.Memory) (float64, bool) { return m.GetConfidence(), m.Confidence != nil },
	"revision":   func(m *pb.Memory) (float64, bool) { return float64(m.GetRevision()), true },
	"sensitivity": func(m *pb.Memory) (float64, bool) {
		return float64(m.GetSensitivity()), m.GetSensitivity() != pb.Sensitivity_SENSITIVITY_UNSPECIFIED
	},
}
