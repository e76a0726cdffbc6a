package htpasswd

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dray/mirror/identity"
)

// command runs the subcommand.
func command(stdin string, args ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	cmd := Command(strings.NewReader(stdin), &out, &errs)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(context.Background())
	return out.String(), errs.String(), err
}

// recognised reports whether dray recognises a user by a password file.
func recognised(t *testing.T, file, user, password string) bool {
	t.Helper()
	h, err := identity.NewHTPasswd(file, "dray", nil)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/v2/", http.NoBody)
	r.SetBasicAuth(user, password)
	_, err = h.Authenticate(r, nil)
	return err == nil
}

// dray recognises a user by the password that was set last, until the user is deleted. Other lines
// and the mode of the file stay.
func TestHTPasswd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "htpasswd")
	must := func(stdin string, args ...string) string {
		t.Helper()
		stdout, stderr, err := command(stdin, args...)
		if err != nil || stderr != "" {
			t.Fatalf("%q: %v, %s", args, err, stderr)
		}
		return stdout
	}
	must("wonderland\n", file, "alice")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a new file has %v, %v", info.Mode(), err)
	}
	must("b:u i\r\n", file, "bob") // a password may have a colon and a space
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	must("looking glass", link, "alice")
	generated := strings.TrimSpace(must("", "--generate", file, "ci"))
	for _, test := range []struct {
		user, password string
		want           bool
	}{{"alice", "looking glass", true}, {"alice", "wonderland", false}, {"bob", "b:u i", true}, {"ci", generated, true}, {"ci", "", false}} {
		if got := recognised(t, file, test.user, test.password); got != test.want {
			t.Errorf("%s with %q: %t", test.user, test.password, got)
		}
	}
	must("", "--delete", file, "bob")
	if recognised(t, file, "bob", "b:u i") || !recognised(t, file, "alice", "looking glass") {
		t.Error("the wrong user was deleted")
	}
	info, err := os.Lstat(file)
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("the changed file has %v, %v", info.Mode(), err)
	}
	if info, err = os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link has become %v, %v", info.Mode(), err)
	}
	text, err := os.ReadFile(file)
	if err != nil || bytes.Contains(text, []byte("glass")) || bytes.Contains(text, []byte(generated)) {
		t.Errorf("the file has a password: %s, %v", text, err)
	}
	left, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(left) != 1 {
		t.Errorf("files are left: %v, %v", left, err)
	}
}

// TestEdit: all bytes that are not about the user stay as they are.
func TestEdit(t *testing.T) {
	for _, test := range []struct{ text, hash, want string }{
		{"", "H", "u:H\n"},
		{"# u:x\n\nother:y", "H", "# u:x\n\nother:y\nu:H\n"},
		{"a:1\r\nu:old\nb:2\nu:older\n", "H", "a:1\r\nu:H\nb:2\n"},
		{"  u:old\nuu:1\n", "H", "u:H\nuu:1\n"},
		{"a:1\nu:old\nb:2", "", "a:1\nb:2"},
		{"a:1\n", "", "a:1\n"},
	} {
		if got, found := edit([]byte(test.text), "u", test.hash); string(got) != test.want || found != strings.Contains(test.text, "u:old") {
			t.Errorf("%q with %q: %q, found %t", test.text, test.hash, got, found)
		}
	}
}

func TestRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "htpasswd")
	for _, test := range []struct {
		stdin string
		args  []string
		want  string
	}{
		{"", []string{file, "ci"}, "the password is empty"},
		{"\n", []string{file, "ci"}, "the password is empty"},
		{strings.Repeat("x", 73), []string{file, "ci"}, "72 bytes"},
		{"x", []string{file, "a:b"}, "neither a colon"},
		{"x", []string{file, "a\nb"}, "control characters"},
		{"x", []string{file, "#a"}, "begin with #"},
		{"x", []string{file, " a"}, "space around it"},
		{"x", []string{file, ""}, "must not be empty"},
		{"x", []string{file}, "accepts"},
		{"", []string{"--delete", file, "ci"}, `has no user "ci"`},
		{"", []string{"--delete", "--generate", file, "ci"}, "none of the others can be"},
		{"", []string{"--generate", filepath.Join(file, "none", "htpasswd"), "ci"}, "no such file"},
		{"x", []string{filepath.Join(file, "none", "htpasswd"), "ci"}, "no such file"},
	} {
		if stdout, _, err := command(test.stdin, test.args...); err == nil || !strings.Contains(err.Error(), test.want) || stdout != "" {
			t.Errorf("%q: %v, %s", test.args, err, stdout)
		}
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused password made a file: %v", err)
	}
	if err := os.WriteFile(file, []byte("old:$apr1$x$y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, err := command("x", file, "ci"); err != nil || !strings.Contains(stderr, "in line 1") {
		t.Errorf("a line that dray cannot use: %v, %s", err, stderr)
	}
}

// TestAsk: a person types the password twice.
func TestAsk(t *testing.T) {
	for _, test := range []struct {
		typed []string
		want  string
		fails string
	}{
		{[]string{"secret", "secret"}, "secret", ""}, {[]string{"secret", "secrets"}, "", "differ"}, {[]string{"", ""}, "", "empty"}, {[]string{"secret"}, "", "closed"},
	} {
		var prompts bytes.Buffer
		got, err := ask("ci", &prompts, func() ([]byte, error) {
			if len(test.typed) == 0 {
				return nil, os.ErrClosed
			}
			next := test.typed[0]
			test.typed = test.typed[1:]
			return []byte(next), nil
		})
		if got != test.want || (err == nil) != (test.fails == "") || err != nil && !strings.Contains(err.Error(), test.fails) {
			t.Errorf("got %q, %v", got, err)
		}
		if !strings.HasPrefix(prompts.String(), "Password for ci: \n") || strings.Contains(prompts.String(), "secret") {
			t.Errorf("prompts: %q", prompts.String())
		}
	}
}
