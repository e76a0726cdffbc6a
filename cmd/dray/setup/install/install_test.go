package install

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// line is a change that makes a line the first of a file.
func line(path, text string) Change {
	return Change{path, func(old []byte) ([]byte, error) {
		if bytes.Contains(old, []byte(text)) {
			return old, nil
		}
		return append([]byte(text+"\n"), old...), nil
	}}
}

// tree returns the files below a directory with their content.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && path != root {
			if entries, _ := os.ReadDir(path); len(entries) == 0 && err == nil {
				found[strings.TrimPrefix(path, root)+"/"] = ""
			}
			return err
		}
		if d.Type().IsRegular() {
			content, err := os.ReadFile(path)
			found[strings.TrimPrefix(path, root)] = string(content)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func put1(t *testing.T, root, path, content string) {
	t.Helper()
	name := filepath.Join(root, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o640)); err != nil {
		t.Fatal(err)
	}
}

func states(results []Result, err error) string {
	var all []string
	for _, r := range results {
		all = append(all, r.Path+" "+string(r.State))
	}
	if err != nil {
		all = append(all, err.Error())
	}
	return strings.Join(all, ", ")
}

// TestWriteAndUndo: what was written goes away again, with the directories; a second call changes
// nothing.
func TestWriteAndUndo(t *testing.T) {
	root := filepath.Join(t.TempDir(), "new", "root")
	put1(t, root, "/etc/old", "a\nb\n")
	before := tree(t, root)
	p := Place{root, "c"}
	changes := []Change{line("/etc/old", "new"), line("/etc/x/y/fresh", "new"), {"/etc/none", func([]byte) ([]byte, error) { return nil, nil }}}
	if got, want := states(p.Write(changes)), "/etc/old written, /etc/x/y/fresh written"; got != want {
		t.Fatalf("write: %s, want %s", got, want)
	}
	after := tree(t, root)
	if after["/etc/old"] != "new\na\nb\n" || after["/etc/old.before-dray"] != "a\nb\n" || after["/etc/x/y/fresh"] != "new\n" || after["/etc/none"] != "" {
		t.Errorf("after write: %v", after)
	}
	if info, err := os.Stat(filepath.Join(root, "/etc/old")); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(p.recordFile()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the record %v, %v", info.Mode(), err)
	}
	if got, want := states(p.Write(changes)), "/etc/old unchanged, /etc/x/y/fresh unchanged"; got != want {
		t.Errorf("write again: %s, want %s", got, want)
	}
	if diff := cmp.Diff(after, tree(t, root)); diff != "" {
		t.Errorf("writing again changed:\n%s", diff)
	}
	if got, want := states(p.Undo()), "/etc/x/y/fresh removed, /etc/old restored"; got != want {
		t.Errorf("undo: %s, want %s", got, want)
	}
	left := tree(t, root)
	maps.DeleteFunc(left, func(path, _ string) bool { return strings.HasPrefix(path, "/var/") })
	if diff := cmp.Diff(before, left); diff != "" {
		t.Errorf("after undo (-before):\n%s", diff)
	}
	if got := states(p.Undo()); got != "" {
		t.Errorf("undo again: %s", got)
	}
}

// TestUndoOfARemovedFile: the former content of a file that somebody has removed stays.
func TestUndoOfARemovedFile(t *testing.T) {
	root := t.TempDir()
	put1(t, root, "/etc/old", "a\n")
	p := Place{root, "c"}
	if got, want := states(p.Write([]Change{line("/etc/old", "new")})), "/etc/old written"; got != want {
		t.Fatalf("write: %s, want %s", got, want)
	}
	if err := os.Remove(filepath.Join(root, "/etc/old")); err != nil {
		t.Fatal(err)
	}
	if got, want := states(p.Undo()), "/etc/old removed"; got != want {
		t.Errorf("undo: %s, want %s", got, want)
	}
	if left := tree(t, root); left["/etc/old.before-dray"] != "a\n" {
		t.Errorf("after undo: %v", left)
	}
}

// TestUndoOfAFileWrittenAgain: the former content of a file that somebody has removed also stays
// after a further write, whatever happens to the new file.
func TestUndoOfAFileWrittenAgain(t *testing.T) {
	for added, want := range map[string]string{"": "/etc/old removed", "mine\n": "/etc/old restored"} {
		root := t.TempDir()
		put1(t, root, "/etc/old", "a\n")
		p := Place{root, "c"}
		write := func(text string) {
			if got, want := states(p.Write([]Change{line("/etc/old", text)})), "/etc/old written"; got != want {
				t.Fatalf("write: %s, want %s", got, want)
			}
		}
		write("one")
		if err := os.Remove(filepath.Join(root, "/etc/old")); err != nil {
			t.Fatal(err)
		}
		write("one")
		put1(t, root, "/etc/old", "one\n"+added)
		write("two")
		if got := states(p.Undo()); got != want {
			t.Errorf("undo: %s, want %s", got, want)
		}
		left := tree(t, root)
		maps.DeleteFunc(left, func(path, text string) bool { return text == "" })
		expect := map[string]string{"/etc/old.before-dray": "a\n"}
		if added != "" {
			expect["/etc/old"] = added
		}
		if diff := cmp.Diff(expect, left); diff != "" {
			t.Errorf("after undo of %q (-want):\n%s", added, diff)
		}
	}
}

// TestDirectoriesOfOthers: a directory that somebody has removed is forgotten, so it stays if
// somebody makes it again.
func TestDirectoriesOfOthers(t *testing.T) {
	root := t.TempDir()
	p := Place{root, "c"}
	kept := []Change{line("/etc/kept", "new")}
	if _, err := p.Write(append(kept, line("/etc/x/y/fresh", "new"))); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "/etc/x")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if got, want := states(p.Write(kept)), "/etc/x/y/fresh removed, /etc/kept unchanged"; got != want {
		t.Errorf("write: %s, want %s", got, want)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, want := states(p.Undo()), "/etc/kept removed"; got != want {
		t.Errorf("undo: %s, want %s", got, want)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
}

// TestWriteOther: with other changes, what was written before does not stay.
func TestWriteOther(t *testing.T) {
	root := t.TempDir()
	put1(t, root, "/etc/old", "a\n")
	p := Place{root, "c"}
	if got, want := states(p.Write([]Change{line("/etc/old", "one"), line("/etc/gone", "one")})), "/etc/old written, /etc/gone written"; got != want {
		t.Fatalf("write: %s, want %s", got, want)
	}
	put1(t, root, "/etc/old", "one\na\nmine\n")
	if got, want := states(p.Write([]Change{line("/etc/old", "two")})), "/etc/gone removed, /etc/old written"; got != want {
		t.Errorf("write other: %s, want %s", got, want)
	}
	if content, err := p.Read("/etc/old"); err != nil || string(content) != "a\nmine\n" {
		t.Errorf("read: %q, %v", content, err)
	}
	got := tree(t, root)
	if got["/etc/old"] != "two\na\nmine\n" || got["/etc/old.before-dray"] != "a\n" {
		t.Errorf("after that: %v", got)
	}
}

// TestUndoAfterEdits: other lines stay as somebody edited them, and the lines that were written are
// left alone if they were edited.
func TestUndoAfterEdits(t *testing.T) {
	for name, tc := range map[string]struct {
		path, before, edited string
		state                State
		after                string
	}{
		"a line added":     {"/f", "a\nb\n", "new\na\nmine\nb\n", Restored, "a\nmine\nb\n"},
		"a line removed":   {"/f", "a\nb\n", "new\na\n", Restored, "a\n"},
		"our line edited":  {"/f", "a\n", "newer\na\n", LeftAlone, "newer\na\n"},
		"restored by hand": {"/f", "a\n", "a\n", Restored, "a\n"},
		"added to ours":    {"/f", "", "new\nmine\n", Restored, "mine\n"},
		"blank line":       {"/f", "", "new\n\n", Removed, ""},
		"blank JSON":       {"/f.json", "", "new\n\n", Removed, ""},
		"blank before":     {"/f.json", "\n", "new\n\n\n", Restored, "\n\n"},
		"not TOML then":    {"/f.toml", "[a]\n", "new\n[a]\n[\n", LeftAlone, "new\n[a]\n[\n"},
	} {
		root := t.TempDir()
		p := Place{root, "c"}
		if tc.before != "" {
			put1(t, root, tc.path, tc.before)
		}
		if _, err := p.Write([]Change{line(tc.path, "new")}); err != nil {
			t.Fatal(err)
		}
		put1(t, root, tc.path, tc.edited)
		results, err := p.Undo()
		if err != nil || len(results) != 1 || results[0].State != tc.state || (tc.state == LeftAlone) != (results[0].Reason != "") {
			t.Errorf("%s: %+v, %v; want %s", name, results, err, tc.state)
		}
		if got := tree(t, root)[tc.path]; got != tc.after {
			t.Errorf("%s: %q, want %q", name, got, tc.after)
		}
	}
}

// TestLeftAlone: a file that cannot be changed is named with the reason, and the others are
// written.
func TestLeftAlone(t *testing.T) {
	root := filepath.Join(t.TempDir(), "a [root]")
	put1(t, root, "/etc/bad", "a\n")
	put1(t, root, "/elsewhere", "a\n")
	if err := errors.Join(os.Symlink("/elsewhere", filepath.Join(root, "/etc/link")), os.Mkdir(filepath.Join(root, "/etc/dir"), 0o755)); err != nil {
		t.Fatal(err)
	}
	p := Place{root, "c"}
	results, err := p.Write([]Change{{"/etc/bad", func([]byte) ([]byte, error) { return nil, errors.New("it is bad") }}, line("/etc/link", "new"), line("/etc/dir", "new"), line("/etc/good", "new")})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range results {
		got = append(got, r.Path+": "+r.Reason)
	}
	want := []string{"/etc/bad: it is bad", "/etc/link: it is a symbolic link to /elsewhere, which another program may manage; edit that file yourself", "/etc/dir: it is not a regular file", "/etc/good: "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if tree(t, root)["/etc/good"] != "new\n" {
		t.Error("the other file was not written")
	}
	if found := p.Glob("/etc/[bg]*d"); !slices.Equal(found, []string{"/etc/bad", "/etc/good"}) {
		t.Errorf("glob: %v", found)
	}
}

// TestAdvice: whoever may not write is told to be root.
func TestAdvice(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "/etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	refused := fmt.Errorf("open /etc/x: %w", fs.ErrPermission)
	results, err := Place{root, "c"}.Write([]Change{{"/etc/x", func([]byte) ([]byte, error) { return nil, refused }}})
	if err != nil || len(results) != 1 || results[0].Reason != "open /etc/x: permission denied; run dray setup as root" {
		t.Errorf("%+v, %v", results, err)
	}
	if os.Geteuid() == 0 {
		return // who may write everywhere
	}
	_, err = Place{"/", "c"}.Write([]Change{line("/etc/dray-setup-test", "new")})
	if err == nil || !strings.Contains(err.Error(), "run dray setup as root") {
		t.Errorf("not as root: %v", err)
	}
}

// TestNewRoot: the root is made if it does not exist, and a file that cannot be written is not in
// the record.
func TestNewRoot(t *testing.T) {
	root := filepath.Join(t.TempDir(), "new", "root")
	p := Place{root, "c"}
	if got, want := states(p.Write([]Change{line("/etc/a", "new")})), "/etc/a written"; got != want {
		t.Fatalf("write: %s, want %s", got, want)
	}
	put1(t, root, "/etc/x", "a file where a directory is needed\n")
	results, err := p.Write([]Change{line("/etc/a", "new"), line("/etc/x/y/z", "new")})
	if err != nil || len(results) != 2 || results[1].State != LeftAlone {
		t.Errorf("%+v, %v", results, err)
	}
	if got, want := states(p.Undo()), "/etc/a removed"; got != want {
		t.Errorf("undo: %s, want %s", got, want)
	}
	if left := tree(t, root); left["/etc/x"] == "" || len(left["/etc/a"]) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestNoLongerNeeded: a file that dray made goes away if its change is no longer needed.
func TestNoLongerNeeded(t *testing.T) {
	for before, want := range map[string]string{"": "/etc/x/f removed", "a\n": "/etc/x/f restored"} {
		root := t.TempDir()
		if before != "" {
			put1(t, root, "/etc/x/f", before)
		}
		first := tree(t, root)
		p := Place{root, "c"}
		if got := states(p.Write([]Change{line("/etc/x/f", "new")})); got != "/etc/x/f written" {
			t.Fatalf("write: %s", got)
		}
		none := Change{"/etc/x/f", func(old []byte) ([]byte, error) {
			if bytes.HasPrefix(old, []byte("new")) {
				return []byte("newer\n"), nil
			}
			return nil, nil
		}}
		if got := states(p.Write([]Change{none})); got != want {
			t.Errorf("write: %s, want %s", got, want)
		}
		left := tree(t, root)
		delete(left, "/var/lib/")
		if before == "" {
			if _, err := os.Stat(filepath.Join(root, "/etc")); err == nil {
				t.Errorf("left: %v", left)
			}
		} else if diff := cmp.Diff(first, left); diff != "" {
			t.Errorf("left (-want):\n%s", diff)
		}
	}
}

// TestBackup: the backup of a file that dray made and somebody edited has nothing of dray.
func TestBackup(t *testing.T) {
	root := t.TempDir()
	p := Place{root, "c"}
	for _, text := range []string{"one", "two"} {
		if got := states(p.Write([]Change{line("/etc/f", text)})); got != "/etc/f written" {
			t.Fatalf("write: %s", got)
		}
		if text == "one" {
			put1(t, root, "/etc/f", "one\nmine\n")
		}
	}
	if left := tree(t, root); left["/etc/f"] != "two\nmine\n" || left["/etc/f.before-dray"] != "mine\n" {
		t.Errorf("files: %v", left)
	}
}

// TestWriteThatFails: a write that fails late leaves neither a backup nor a directory.
func TestWriteThatFails(t *testing.T) {
	root := t.TempDir()
	put1(t, root, "/etc/f", "a\n")
	if err := errors.Join(os.Mkdir(filepath.Join(root, "var"), 0o755), os.Symlink("nowhere", filepath.Join(root, "var/lib"))); err != nil {
		t.Fatal(err) // a record cannot be written
	}
	before := tree(t, root)
	if got, want := states(Place{root, "c"}.Write([]Change{line("/etc/f", "new"), line("/etc/x/g", "new")})), "/etc/f left alone, /etc/x/g left alone"; got != want {
		t.Errorf("write: %s, want %s", got, want)
	}
	if diff := cmp.Diff(before, tree(t, root)); diff != "" {
		t.Errorf("after it (-want):\n%s", diff)
	}
}
