package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"go.yaml.in/yaml/v3"
)

// documents are the pages for users, by path.
func documents(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../deploy/*.md"} {
		pages, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range pages {
			all[strings.TrimPrefix(page, "../../")] = read(t, page)
		}
	}
	return all
}

// codeBlock is a block of a document, with its language and its text.
var codeBlock = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")

// TestBlocks: each block of a document is well-formed. Commands run in a shell in which every
// program but dray does nothing, and dray knows the subcommands and flags that it gets.
func TestBlocks(t *testing.T) {
	shell := newDocumentShell(t)
	counts := map[string]int{}
	for page, text := range documents(t) {
		for _, block := range codeBlock.FindAllStringSubmatch(text, -1) {
			language, text := block[1], block[2]
			counts[language]++
			var err error
			switch language {
			case "yaml":
				err = parseAllYAML(text)
			case "json":
				err = json.Unmarshal([]byte(text), new(any))
			case "toml":
				err = toml.Unmarshal([]byte(text), new(any))
			case "bash":
				err = shell.run(text)
			case "console":
				err = shell.run(commandsOf(text))
			case "nginx", "hcl", "mermaid", "": // tests of cmd/e2e run the first two
			default:
				err = fmt.Errorf("no test knows blocks of the language %q", language)
			}
			if err != nil {
				t.Errorf("%s: %v\n%s", page, err, text)
			}
		}
	}
	for language, least := range map[string]int{"console": 40, "yaml": 40, "toml": 5, "json": 3} {
		if counts[language] < least {
			t.Errorf("%d blocks of %s were found, want at least %d", counts[language], language, least)
		}
	}
	if shell.parsed < 30 {
		t.Errorf("%d commands of dray were found", shell.parsed)
	}
}

func parseAllYAML(text string) error {
	decoder := yaml.NewDecoder(strings.NewReader(text))
	for {
		if err := decoder.Decode(new(yaml.Node)); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// commandsOf returns the commands of a transcript, without what they print. A command begins with
// "$ " or, if it needs root, with "# ". It goes on after a backslash at the end of a line, and
// within quotes.
func commandsOf(transcript string) string {
	var b strings.Builder
	more, quoted := false, false
	for line := range strings.Lines(transcript) {
		command := strings.HasPrefix(line, "$ ") || strings.HasPrefix(line, "# ")
		if !command && !more {
			continue
		}
		if command {
			line = line[2:]
		}
		quoted = quoted != (strings.Count(line, "'")%2 == 1)
		more = quoted || strings.HasSuffix(line, "\\\n")
		b.WriteString(line)
	}
	return b.String()
}

// documentPrograms are the programs that documents run, besides dray.
var documentPrograms = strings.Fields(`apt aws base64 bin/fakeecr cat chmod chown cosign curl docker executor go helm install jq kubectl make mv
	openssl playtest redis-cli restic scp sha256sum skopeo ssh systemctl tar terraform`)

// documentShell runs commands with stand-ins for all programs.
type documentShell struct {
	bash, dir string
	parsed    int // commands of dray
}

func newDocumentShell(t *testing.T) *documentShell {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed")
	}
	s := &documentShell{bash: bash, dir: t.TempDir()}
	stand := func(name, script string) {
		path := filepath.Join(s.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!"+bash+"\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range documentPrograms {
		stand(name, "")
	}
	for _, name := range []string{"dray", "bin/dray", "/dray"} {
		stand(name, `{ printf '%s\0' "$@"; printf '\0'; } >> "$CALLS"`)
	}
	stand("sudo", `exec "$@"`)
	stand("runuser", `while [ "$1" != -- ]; do shift; done; shift; exec "$@"`)
	return s
}

// toElsewhere matches what writes or reads outside of the working directory.
var toElsewhere = regexp.MustCompile(`[<>]\s*/(\S+)`)

// run runs commands, and parses those of dray.
func (s *documentShell) run(commands string) error {
	calls := filepath.Join(s.dir, "calls")
	if err := os.WriteFile(calls, nil, 0o600); err != nil {
		return err
	}
	commands = toElsewhere.ReplaceAllString(commands, "< /dev/null")
	if err := os.MkdirAll(filepath.Join(s.dir, "policy"), 0o755); err != nil {
		return err
	}
	for _, file := range []string{"fakeecr.env", "ci-password", "policy/app.yaml"} { // that the documents read
		if err := os.WriteFile(filepath.Join(s.dir, file), nil, 0o600); err != nil {
			return err
		}
	}
	cmd := exec.Command(s.bash, "-eu", "-c", "cd() { :; }\n"+commands+"\nwait\n")
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + s.dir, "CALLS=" + calls, "DRAY_PASSWORD=secret", "PWD=" + s.dir}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	recorded, err := os.ReadFile(calls)
	if err != nil {
		return err
	}
	for call := range strings.SplitSeq(strings.TrimSuffix(string(recorded), "\x00\x00"), "\x00\x00") {
		if call == "" {
			continue
		}
		s.parsed++
		if err := parses(strings.Split(call, "\x00")); err != nil {
			return err
		}
	}
	return nil
}

// parses reports whether dray takes arguments, without running the command.
func parses(args []string) error {
	cmd, rest, err := rootCommand(&invocation{stdout: io.Discard, stderr: io.Discard}).Find(args)
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return fmt.Errorf("dray %q: %w", args, err)
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		return fmt.Errorf("dray %q: %w", args, err)
	}
	return nil
}

// link is a link to a file of the project, perhaps with a heading.
var link = regexp.MustCompile(`\]\(([^)#:\s]*)(#[^)\s]*)?\)`)

// TestLinks: each link of a document leads to a file that exists, and to a heading in it.
func TestLinks(t *testing.T) {
	for page, text := range documents(t) {
		for _, l := range link.FindAllStringSubmatch(codeBlock.ReplaceAllString(text, ""), -1) {
			target := page
			if l[1] != "" {
				target = filepath.Join(filepath.Dir(page), l[1])
			}
			at := filepath.Join("../..", target)
			if _, err := os.Stat(at); err != nil {
				t.Errorf("%s links to %s, which is not there", page, target)
				continue
			}
			if l[2] != "" && !slices.Contains(anchors(read(t, at)), l[2][1:]) {
				t.Errorf("%s links to %s%s, and there is no such heading", page, target, l[2])
			}
		}
	}
}

// anchors returns the names of the headings of a document, as GitHub makes them.
func anchors(text string) (all []string) {
	for line := range strings.Lines(codeBlock.ReplaceAllString(text, "")) {
		title := strings.TrimLeft(line, "#")
		if title == line {
			continue
		}
		title = strings.ToLower(strings.TrimSpace(title))
		title = regexp.MustCompile(`[^\pL\pN _-]`).ReplaceAllString(title, "")
		all = append(all, strings.ReplaceAll(title, " ", "-"))
	}
	return all
}

// explainedText is a text of dray in the tables of docs/troubleshooting.md.
var explainedText = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")

// TestTroubleshooting: each text that docs/troubleshooting.md explains is one of the program, in
// which "…" stands for what differs.
func TestTroubleshooting(t *testing.T) {
	texts := read(t, "testdata/texts.golden")
	explained := explainedText.FindAllStringSubmatch(read(t, "../../docs/troubleshooting.md"), -1)
	for _, e := range explained {
		parts := strings.Split(e[1], "…")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		if !regexp.MustCompile("(?m)^.*" + strings.Join(parts, `[^\n]+`) + ".*$").MatchString(texts) {
			t.Errorf("dray has no text like %q", e[1])
		}
	}
	if len(explained) < 35 {
		t.Errorf("only %d texts were found", len(explained))
	}
}
