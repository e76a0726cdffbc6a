package watched

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dray/upstream/auth"
)

func TestParseHeaders(t *testing.T) {
	for _, c := range []struct {
		text string
		want map[string][]string // nil if the text is refused
	}{
		{"Authorization: Bearer abc\n", map[string][]string{"Authorization": {"Bearer abc"}}},
		{"# who calls\r\nx-team:core\r\n\r\nX-Url: https://a.example:1/\t\r\n", map[string][]string{"X-Team": {"core"}, "X-Url": {"https://a.example:1/"}}},
		{"X-Empty:", map[string][]string{"X-Empty": {""}}},
		{"", nil},
		{"# all is commented out\n", nil},
		{"Bearer hidden", nil},
		{"Authorization : hidden", nil},
		{": hidden", nil},
		{"X-A: a\nAuthorization = hidden\n", nil},
		{"X-A: hid\x00den", nil},
		{"\ufeffX-A: hidden", nil},
	} {
		got, err := ParseHeaders([]byte(c.text))
		if (err == nil) != (c.want != nil) || c.want != nil && !cmp.Equal(map[string][]string(got), c.want) {
			t.Errorf("%q: %v, %v", c.text, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "hid") {
			t.Errorf("%q: the error shows the value: %v", c.text, err)
		}
	}
	if _, err := Headers(map[string]auth.Secret{"X A": "hidden"}); err == nil || strings.Contains(err.Error(), "hidden") {
		t.Errorf("a name with a space: %v", err)
	}
}

func TestParseVariables(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string // nil if the text is refused
	}{
		{"TOKEN=abc", []string{"TOKEN=abc"}},
		{"# for the scanner\r\nA=b=c # d\r\n\r\nEMPTY=\r\nTAB=\ta\n", []string{"A=b=c # d", "EMPTY=", "TAB=\ta"}},
		{"", nil},
		{"\n# nothing\n", nil},
		{"hidden", nil},
		{"=hidden", nil},
		{"export TOKEN=hidden", nil},
		{" TOKEN=hidden", nil},
		{"TOKEN=hid\x00den", nil},
		{"\ufeffTOKEN=hidden", nil},
	} {
		got, err := ParseVariables([]byte(c.text))
		if (err == nil) != (c.want != nil) || !cmp.Equal(got, c.want) {
			t.Errorf("%q: %q, %v", c.text, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "hid") {
			t.Errorf("%q: the error shows the value: %v", c.text, err)
		}
	}
}

// A file that is accepted makes headers and variables that can be sent and passed on, and an error
// shows nothing of the file.
func FuzzParse(f *testing.F) {
	f.Add("Authorization: Bearer x\nTOKEN=x\n")
	f.Add("# x\r\n\r\nA=:\r")
	f.Fuzz(func(t *testing.T, text string) {
		headers, err := ParseHeaders([]byte(text))
		if err == nil && len(headers) == 0 {
			t.Error("no header")
		}
		for name, values := range headers {
			if len(values) != 1 || strings.ContainsAny(name+values[0], "\r\n\x00") {
				t.Errorf("%q: %q", name, values)
			}
		}
		variables, err := ParseVariables([]byte(text))
		if err == nil && len(variables) == 0 {
			t.Error("no variable")
		}
		for _, v := range variables {
			if name, _, ok := strings.Cut(v, "="); !ok || name == "" || strings.ContainsAny(v, "\r\n\x00") {
				t.Errorf("%q", v)
			}
		}
	})
}
