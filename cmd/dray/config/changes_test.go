package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dray/cmd/dray/config/changes"
	"dray/upstream/auth"
)

// full returns a configuration in which every list of sections has an entry.
func full() Config {
	return Config{
		Listeners: []Listener{{Name: "main"}}, Upstreams: []Upstream{{Name: "hub"}}, Checks: []Checks{{Name: "strict"}}, Auth: []Auth{{Name: "people"}},
	}
}

// other sets v to a value that it does not have.
func other(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Float64:
		v.SetFloat(v.Float() + 1)
	case reflect.Uint16:
		v.SetUint(v.Uint() + 1)
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), v.Len()+1, v.Len()+1))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("x"), reflect.Zero(v.Type().Elem()))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	default:
		t.Fatalf("no other value of %s", v.Type())
	}
}

// eachKey calls f for each key whose value is compared as a whole, with its path and value in c.
func eachKey(c *Config, f func(path, key string, value reflect.Value)) {
	var section func(path, key string, v reflect.Value)
	section = func(path, key string, v reflect.Value) {
		for i := range v.NumField() {
			name, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
			path, key, in := join(path, name), join(key, name), v.Field(i)
			switch {
			case options == "inline":
				section(strings.TrimSuffix(path, "."), strings.TrimSuffix(key, "."), in)
			case in.Kind() == reflect.Slice && in.Len() > 0: // full has entries only where they are sections
				section(path+"["+in.Index(0).FieldByName("Name").String()+"]", key+"[]", in.Index(0))
			case in.Kind() == reflect.Struct && !isText(in.Type()):
				section(path, key, in)
			default:
				f(path, key, in)
			}
		}
	}
	section("", "", reflect.ValueOf(c).Elem())
}

// TestMergeOfEachKey: whatever key changes, the table says whether it is in the merged
// configuration or waits for a restart, and nothing else changes.
func TestMergeOfEachKey(t *testing.T) {
	var keys []string
	running := full()
	eachKey(&running, func(_, key string, _ reflect.Value) { keys = append(keys, key) })
	if len(keys) < 100 {
		t.Fatalf("only %d keys: %q", len(keys), keys)
	}
	for _, changed := range keys {
		running, file := full(), full()
		var at string
		eachKey(&file, func(path, key string, v reflect.Value) {
			if key == changed {
				at = path
				other(t, v)
			}
		})
		if strings.HasSuffix(changed, "[].name") {
			continue // another entry, see TestMergeOfEntries
		}
		got := changes.Merge(running, file)
		want := changes.Merged[Config]{Config: running, Pending: []string{at}}
		if changes.AtOnce(changed) {
			want = changes.Merged[Config]{Config: file, Changed: []string{at}}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: changed %q, pending %q", changed, got.Changed, got.Pending)
		}
		if diff := cmp.Diff(full(), running); diff != "" {
			t.Errorf("%s: the running configuration was changed:\n%s", changed, diff)
		}
	}
	for _, key := range changes.Keys() {
		if !slices.ContainsFunc(keys, func(k string) bool { return k == key || strings.HasPrefix(k, key+".") || strings.HasPrefix(k, key+"[") }) {
			t.Errorf("there is no key %s", key)
		}
	}
}

func TestMergeOfEntries(t *testing.T) {
	running, file := full(), full()
	running.Listeners = []Listener{{Name: "a", Role: "mirror"}, {Name: "b"}}
	file.Listeners = []Listener{{Name: "c"}, {Name: "a", Role: "registry", Address: ":1"}}
	running.Auth = []Auth{{Name: "a"}, {Name: "b"}}
	file.Auth = []Auth{{Name: "c"}, {Name: "b", Rules: []Rule{{Anonymous: true}}}}
	got := changes.Merge(running, file)
	want := running
	want.Listeners = running.Listeners // what is safe at one address may not be safe at another
	want.Auth = []Auth{file.Auth[1], file.Auth[0]}
	if diff := cmp.Diff(want, got.Config); diff != "" {
		t.Error(diff)
	}
	if now, later := fmt.Sprint(got.Changed), fmt.Sprint(got.Pending); now != "[auth[a] auth[b].rules auth[c]]" || later != "[listeners[a].address listeners[a].role listeners[b] listeners[c]]" {
		t.Errorf("changed %s, pending %s", now, later)
	}
	if again := changes.Merge(got.Config, file); len(again.Changed) > 0 || !slices.Equal(again.Pending, got.Pending) {
		t.Errorf("a second time: changed %q, pending %q", again.Changed, again.Pending)
	}
	slices.Reverse(file.Auth)
	if again := changes.Merge(got.Config, file); len(again.Changed) > 0 {
		t.Errorf("in another order: changed %q", again.Changed)
	}
}

// TestMergeOfAddresses: if the address of a listener changes, all its settings wait for a restart,
// because they may be safe only at the new address.
func TestMergeOfAddresses(t *testing.T) {
	running, file := full(), full()
	running.Listeners[0].Address, running.Listeners[0].Auth = ":5000", "people"
	file.Listeners[0].Address, file.Listeners[0].AllowAnonymousPush = "127.0.0.1:5000", true
	running.Admin = Admin{Address: ":6060", Auth: "people"}
	file.Admin = Admin{Address: "127.0.0.1:6060", AllowAnonymous: true}
	file.Log.Access = true
	got := changes.Merge(running, file)
	running.Log.Access = true
	if diff := cmp.Diff(running, got.Config); diff != "" || fmt.Sprint(got.Changed) != "[log.access]" {
		t.Errorf("changed %s\n%s", got.Changed, diff)
	}
}

// TestMergeOfQueues: a reload does not remove an upstream that it cannot add again.
func TestMergeOfQueues(t *testing.T) {
	running, file := full(), full()
	running.Upstreams = []Upstream{{Name: "hub"}, {Name: "prod", Acknowledge: AcknowledgeLocal}}
	file.Upstreams = nil
	got := changes.Merge(running, file)
	if diff := cmp.Diff(running.Upstreams[1:], got.Config.Upstreams); diff != "" || fmt.Sprint(got.Changed, got.Pending) != "[upstreams[hub]] [upstreams[prod]]" {
		t.Errorf("changed %s, pending %s\n%s", got.Changed, got.Pending, diff)
	}
}

// TestMergeOfSecrets: a new secret in a file that dray reads again by itself does not count as a
// change.
func TestMergeOfSecrets(t *testing.T) {
	running, file := full(), full()
	running.Metadata = Metadata{PasswordFile: "f", Password: "old"}
	file.Metadata = Metadata{PasswordFile: "f", Password: "new"}
	if got := changes.Merge(running, file); len(got.Changed)+len(got.Pending) > 0 || got.Config.Metadata.Password != "new" {
		t.Errorf("changed %q, pending %q", got.Changed, got.Pending)
	}
	file.Metadata = Metadata{Password: auth.Secret("new")}
	if got := changes.Merge(running, file); fmt.Sprint(got.Pending) != "[metadata.password_file metadata.password]" {
		t.Errorf("pending %q", got.Pending)
	}
}
