package imagelist

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// giveArgument says how to give a value to an argument of a Dockerfile.
const giveArgument = "set --build-arg %s=VALUE"

// readDockerfile finds the images that a build reads: the images in FROM, COPY --from and RUN
// --mount, and the frontend that a syntax directive names.
func (o Options) readDockerfile(text []byte, f *found) {
	if name, _, at, ok := parser.DetectSyntax(text); ok && len(at) > 0 {
		f.addName(name, o.Host, at[0].Start.Line)
	}
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		f.problem(lineOf(err), err)
		return
	}
	targets := o.Targets
	if len(targets) == 0 {
		targets = []string{""}
	}
	for _, target := range targets {
		b := &build{Options: o, found: f, lex: shell.NewLex(parsed.EscapeToken), target: target, global: o.predefined(target)}
		for _, n := range parsed.AST.Children {
			b.read(n)
		}
	}
}

func lineOf(err error) int {
	if at, ok := errors.AsType[*parser.LocationError](err); ok && len(at.Locations) > 0 && len(at.Locations[0]) > 0 {
		return at.Locations[0][0].Start.Line
	}
	return 1
}

// predefined returns the arguments that BuildKit sets (Dockerfile reference, "Automatic platform
// ARGs in the global scope").
func (o Options) predefined(target string) variables {
	v := variables{}
	if target == "" {
		target = o.Host
	}
	for prefix, platform := range map[string]string{"TARGET": target, "BUILD": o.Host} {
		parts := append(strings.SplitN(platform, "/", 3), "", "")
		v[prefix+"PLATFORM"], v[prefix+"OS"], v[prefix+"ARCH"], v[prefix+"VARIANT"] = platform, parts[0], parts[1], parts[2]
	}
	return v
}

// build is one build of a Dockerfile.
type build struct {
	Options
	*found
	lex    *shell.Lex
	target string    // one of Options.Targets; empty if there are none
	global variables // the arguments before the first FROM
	stages []string  // the names of the stages so far, in lower case; "" for a stage without a name
}

func (b *build) read(n *parser.Node) {
	switch strings.ToLower(n.Value) {
	case "arg":
		if len(b.stages) == 0 {
			b.arguments(n)
		}
	case "from":
		b.from(n)
	case "copy":
		b.reads(flag(n, "from"), n.StartLine)
	case "run":
		for _, f := range n.Flags {
			if mount, ok := strings.CutPrefix(f, "--mount="); ok {
				b.reads(option(mount, "from"), n.StartLine)
			}
		}
	}
}

// arguments sets the global arguments of one ARG line.
func (b *build) arguments(n *parser.Node) {
	for w := n.Next; w != nil; w = w.Next {
		name, value, given := strings.Cut(w.Value, "=")
		if set, ok := b.Arguments[name]; ok {
			b.global[name] = set
			continue
		}
		if !given {
			continue
		}
		value, err := b.global.expand(b.lex, value, giveArgument)
		if err != nil {
			b.problem(n.StartLine, err)
			delete(b.global, name)
			continue
		}
		b.global[name] = value
	}
}

// [build.from] reads the FROM of a new stage.
func (b *build) from(n *parser.Node) {
	var words []string
	for w := n.Next; w != nil; w = w.Next {
		words = append(words, w.Value)
	}
	stage := ""
	if len(words) == 3 && strings.EqualFold(words[1], "as") {
		stage = strings.ToLower(words[2])
	} else if len(words) != 1 {
		b.problem(n.StartLine, errors.New("FROM is not of the form FROM IMAGE [AS NAME]"))
		return
	}
	earlier := b.stages
	b.stages = append(b.stages, stage)
	base, err := b.global.expand(b.lex, words[0], giveArgument)
	if err != nil {
		b.problem(n.StartLine, err)
		return
	}
	if base == "scratch" || slices.Contains(earlier, strings.ToLower(base)) {
		return
	}
	platform, err := b.global.expand(b.lex, flag(n, "platform"), giveArgument)
	if err != nil {
		b.problem(n.StartLine, err)
		return
	}
	if platform == "" {
		platform = b.target
	}
	b.addName(base, platform, n.StartLine)
}

// [build.reads] adds the image that an instruction takes files from. It skips the name or number of
// a stage, and a name with variables, which BuildKit does not expand here.
func (b *build) reads(from string, line int) {
	if _, err := strconv.Atoi(from); from == "" || err == nil || strings.Contains(from, "$") || slices.Contains(b.stages, strings.ToLower(from)) {
		return
	}
	b.addName(from, b.target, line)
}

// flag returns the value of a flag of an instruction, or "".
func flag(n *parser.Node, name string) string {
	for _, f := range n.Flags {
		if value, ok := strings.CutPrefix(f, "--"+name+"="); ok {
			return value
		}
	}
	return ""
}

// option returns the value of a key in a list such as type=bind,from=alpine, or "".
func option(list, key string) string {
	for o := range strings.SplitSeq(list, ",") {
		if value, ok := strings.CutPrefix(o, key+"="); ok {
			return value
		}
	}
	return ""
}
