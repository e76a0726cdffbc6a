package manual

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

func program() *cobra.Command {
	nothing := func(*cobra.Command, []string) {}
	root := &cobra.Command{Use: "dray", Short: "A mirror", Long: "A mirror.\n\nExit codes:\n  0  success\n  1  C:\\error", Version: "1.2.3", Run: nothing}
	root.PersistentFlags().StringP("config", "c", "", "configuration `FILE`")
	queue := &cobra.Command{Use: "queue", Short: "Print pushes", Run: nothing}
	queue.Flags().Int("most", 20, "most pushes to print")
	retry := &cobra.Command{Use: "retry ID", Short: "Retry now", Long: ".hidden files are read.", Run: nothing}
	queue.AddCommand(retry)
	root.AddCommand(queue, &cobra.Command{Use: "secret", Hidden: true, Run: nothing}, Command())
	root.InitDefaultCompletionCmd("completion", "bash")
	return root
}

func TestPages(t *testing.T) {
	pages := Pages(program())
	if diff := cmp.Diff([]string{"dray-queue-retry.1", "dray-queue.1", "dray.1"}, slices.Sorted(maps.Keys(pages))); diff != "" {
		t.Error(diff)
	}
	for file, want := range map[string][]string{
		"dray.1": {
			`.TH "DRAY" "1" "" "dray 1.2.3" "User Commands"`, "Exit codes:\n.nf\n  0  success\n  1  C:\\eerror\n.fi\n", ".B dray COMMAND [flags]",
			".SH OPTIONS\n.nf\n  \\-c, \\-\\-config FILE   configuration FILE\n.fi\n", ".BR dray\\-queue (1)\nPrint pushes",
		},
		"dray-queue.1":       {"dray\\-queue \\- Print pushes", "      \\-\\-most int   most pushes to print (default 20)\n", ".SH GLOBAL OPTIONS", ".BR dray (1)"},
		"dray-queue-retry.1": {".B dray queue retry ID", "\n\\&.hidden files are read.\n", ".BR dray\\-queue (1)"},
	} {
		for _, part := range want {
			if !strings.Contains(pages[file], part) {
				t.Errorf("%s lacks %q:\n%s", file, part, pages[file])
			}
		}
	}
}

func TestCommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	root := program()
	root.SetArgs([]string{"man", dir})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "dray-queue.1"))
	if err != nil || string(text) != Pages(program())["dray-queue.1"] {
		t.Errorf("%q, %v", text, err)
	}
}
