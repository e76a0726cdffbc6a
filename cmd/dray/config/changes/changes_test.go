package changes

import (
	"fmt"
	"testing"

	"dray/upstream/auth"
)

type file struct {
	Auth []entry `yaml:"auth"`
	Log  log     `yaml:"log"`
	More more    `yaml:",inline"`
}

type entry struct {
	Name  string   `yaml:"name"`
	Rules []string `yaml:"rules"`
}

type log struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

type more struct {
	KeyFile string      `yaml:"key_file"`
	Key     auth.Secret `yaml:"key"`
}

// TestMerge: what the table lists applies, and the rest stays; the arguments stay as they are.
func TestMerge(t *testing.T) {
	running := file{Auth: []entry{{"a", []string{"x"}}, {"b", nil}}, Log: log{"info", "text"}, More: more{Key: "1"}}
	next := file{Auth: []entry{{"c", nil}, {"a", []string{"y"}}}, Log: log{"debug", "json"}, More: more{Key: "2"}}
	got := Merge(running, next)
	if text := fmt.Sprintf("%+v", got.Config); text != "{Auth:[{Name:a Rules:[y]} {Name:c Rules:[]}] Log:{Level:debug Format:text} More:{KeyFile: Key:[redacted]}}" || got.Config.More.Key != "1" {
		t.Error(text)
	}
	if text := fmt.Sprint(got.Changed, got.Pending); text != "[auth[a].rules auth[b] auth[c] log.level] [log.format key]" {
		t.Error(text)
	}
	if text := fmt.Sprint(running.Auth, next.Auth); text != "[{a [x]} {b []}] [{c []} {a [y]}]" {
		t.Errorf("the arguments are changed: %s", text)
	}
	next.More.KeyFile, running.More.KeyFile = "f", "f"
	if got = Merge(running, next); got.Config.More.Key != "2" || fmt.Sprint(got.Pending) != "[log.format]" {
		t.Errorf("the content of a file: %+v, %q", got.Config.More, got.Pending)
	}
	for _, was := range []string{"", "g"} { // the secret stays that of its file while the new file waits for a restart
		running.More.KeyFile = was
		if got = Merge(running, next); got.Config.More != running.More || fmt.Sprint(got.Pending) != "[log.format key_file]" {
			t.Errorf("instead of the file %q: %+v, %q", was, got.Config.More, got.Pending)
		}
	}
}

type withCredentials struct {
	Upstreams []upstream `yaml:"upstreams"`
}

type upstream struct {
	Name    string      `yaml:"name"`
	KeyFile string      `yaml:"key_file"`
	Key     auth.Secret `yaml:"key"`
}

// TestSecretWithItsFile: a secret changes with the file that it comes from.
func TestSecretWithItsFile(t *testing.T) {
	running, next := withCredentials{[]upstream{{"a", "f", "1"}}}, withCredentials{[]upstream{{"a", "g", "2"}}}
	if got := Merge(running, next); got.Config.Upstreams[0] != next.Upstreams[0] || fmt.Sprint(got.Changed, got.Pending) != "[upstreams[a].key_file] []" {
		t.Errorf("%+v", got)
	}
}
