package jsontext

import (
	"strings"
	"testing"
)

func TestCanonicalForm(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                        `{}`,
		` { "b" : 1 , "a" : [ ] } `: `{"a":[],"b":1}`,
		`{"n":[1e2,1.50,-0,1E21,1e-7,0.000001,333333333.33333329]}`: `{"n":[100,1.5,0,1e+21,1e-7,0.000001,333333333.3333333]}`,
		`{"s":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/"}`:     "{\"s\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}",
		`{"\ud83d\ude00":1,"\ufb33":2}`:                             "{\"😀\":1,\"\ufb33\":2}",
		`{"big":9007199254740992,"e":1e30}`:                         `{"big":9007199254740992,"e":1e+30}`,
		`{"x":{"d":true,"c":null,"":false}}`:                        `{"x":{"":false,"c":null,"d":true}}`,
		`{"tiny":1e-400}`:                                           `{"tiny":0}`,
	} {
		got, err := CanonicalObject(text)
		if err != nil || got != want {
			t.Errorf("%s: got %s, %v; want %s", text, got, err, want)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, text := range []string{
		``, ` `, `[]`, `1`, `"a"`, `{`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":1}x`, `{"a":01}`, `{"a":1.}`, `{"a":.5}`, `{"a":+1}`,
		`{"a":1e}`, `{"a":NaN}`, `{"a":Infinity}`, `{"a":1e400}`, `{"a":"\ud800"}`, `{"a":"\udc00\ud800"}`, `{"a":"\ud800x"}`,
		`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"a":'b'}`, "{\"a\":\"\n\"}", `{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"\u+123"}`,
		`{"a":9007199254740993}`, `{"a":tru}`, "{\"a\":\"\xff\"}",
	} {
		if got, err := CanonicalObject(text); err == nil {
			t.Errorf("%q was accepted as %s", text, got)
		}
	}
}

func TestDepth(t *testing.T) {
	nested := func(depth int) string { return strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth) }
	if _, err := CanonicalObject(nested(MaxDepth)); err != nil {
		t.Errorf("depth %d: %v", MaxDepth, err)
	}
	if _, err := CanonicalObject(nested(MaxDepth + 1)); err == nil {
		t.Errorf("depth %d was accepted", MaxDepth+1)
	}
}
