package manual

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"dray/cmd/dray/usage"
)

// Command returns the hidden subcommand that writes the pages of all commands to a directory. The
// build of a release runs it (deploy/release).
func Command() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIRECTORY",
		Short:  "Write manual pages to a directory",
		Hidden: true,
		Args:   usage.Between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			for name, text := range Pages(cmd.Root()) {
				if err := os.WriteFile(filepath.Join(args[0], name), []byte(text), 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// Pages returns the pages of a command and its subcommands, by the names of their files. It leaves
// out hidden subcommands, and the subcommands that cobra adds.
func Pages(cmd *cobra.Command) map[string]string {
	pages := map[string]string{name(cmd) + ".1": page(cmd)}
	for _, sub := range subcommands(cmd) {
		for file, text := range Pages(sub) {
			pages[file] = text
		}
	}
	return pages
}

// name returns the name of a command's page.
func name(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

func subcommands(cmd *cobra.Command) (all []*cobra.Command) {
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "completion" {
			all = append(all, sub)
		}
	}
	return all
}

// page returns the page of one command in the language of man(7).
func page(cmd *cobra.Command) string {
	var b strings.Builder
	put := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	put(`.TH "%s" "1" "" "dray %s" "User Commands"`, escape(strings.ToUpper(name(cmd))), escape(cmd.Root().Version))
	put(".SH NAME\n%s \\- %s", escape(name(cmd)), escape(cmd.Short))
	synopsis := cmd.UseLine()
	if subs := subcommands(cmd); len(subs) > 0 && cmd.Run == nil && cmd.RunE == nil || !cmd.HasParent() {
		synopsis = cmd.CommandPath() + " COMMAND [flags]"
	}
	put(".SH SYNOPSIS\n.B %s", escape(synopsis))
	long := cmd.Long
	if long == "" {
		long = cmd.Short + "."
	}
	put(".SH DESCRIPTION")
	paragraphs(&b, long)
	options(&b, "OPTIONS", cmd.NonInheritedFlags().FlagUsages())
	options(&b, "GLOBAL OPTIONS", cmd.InheritedFlags().FlagUsages())
	if subs := subcommands(cmd); len(subs) > 0 {
		put(".SH COMMANDS")
		for _, sub := range subs {
			put(".TP\n.BR %s (1)\n%s", escape(name(sub)), escape(sub.Short))
		}
	}
	if cmd.HasParent() {
		put(".SH SEE ALSO\n.BR %s (1)", escape(name(cmd.Parent())))
	}
	return b.String()
}

// paragraphs writes a text whose paragraphs are separated by empty lines. man(1) joins and wraps
// the lines of a paragraph, except those that begin with a space.
func paragraphs(b *strings.Builder, text string) {
	for i, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		verbatim := false
		for line := range strings.Lines(paragraph + "\n") {
			if indented := strings.HasPrefix(line, " "); indented != verbatim {
				verbatim = indented
				b.WriteString(map[bool]string{true: ".nf\n", false: ".fi\n"}[verbatim])
			}
			b.WriteString(escape(line))
		}
		if verbatim {
			b.WriteString(".fi\n")
		}
	}
}

// options writes a section about flags, as the help shows them. Without flags, there is no section.
func options(b *strings.Builder, title, usages string) {
	if usages == "" {
		return
	}
	fmt.Fprintf(b, ".SH %s\n.nf\n", title)
	for line := range strings.Lines(usages) {
		b.WriteString(escape(line))
	}
	b.WriteString(".fi\n")
}

// escape escapes a line of text for man(7). The page then shows the backslashes and hyphens of the
// line unchanged. If the line begins with a dot or quote, man(1) does not take it for a macro.
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}
