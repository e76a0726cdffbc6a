package ctl

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"dray/cmd/dray/usage"
	"dray/mirror/admin/api"
	"dray/upstream/oci"
)

func purgeCommand(in Options) *cobra.Command {
	var q api.PurgeRequest
	cmd := in.operate(&cobra.Command{
		Use:   "purge NAME|DIGEST|--repository PATTERN",
		Short: "Make a running dray forget images and remove what only they need",
		Long: `purge forgets what a tag points to, or the image with a digest, or everything in repositories that match a pattern, and removes the blobs
that no other image needs. The next client that asks gets what the upstream has then. NAME is written as clients write it: docker.io/library/alpine:3,
dray.example.com/team/app:1, or UPSTREAM/REPOSITORY:TAG. A tag goes alone where another one points to the same image.

A pinned image stays whole, with its tags: to name it is refused, and a pattern passes over it. It goes with --force, or after dray unpin. What is being read, and
a blob named by its digest that images need, stay as well unless --force is given; who reads it then reads on. What a push needs stays in any case.`,
		Example: "  dray purge docker.io/library/alpine:3\n  dray purge --repository 'ecr/team/*' --dry-run",
		Args:    usage.Between(0, 1),
	}, func(ctx context.Context, o *operator, args []string) error {
		q.Name = strings.Join(args, "")
		if (q.Name == "") == (q.Repository == "") {
			return fmt.Errorf("name one image or digest, or --repository; %w", usage.Err)
		}
		return change(ctx, o, "purge", q, purgedTable)
	})
	cmd.Flags().StringVar(&q.Repository, "repository", "", "purge all repositories that match, as UPSTREAM/REPOSITORY or REPOSITORY; * stands for any characters")
	cmd.Flags().BoolVar(&q.DryRun, "dry-run", false, "print what would be done, and do nothing")
	cmd.Flags().BoolVar(&q.Force, "force", false, "purge what is pinned, being read, or named by its digest and needed, too")
	return cmd
}

func purgedTable(w io.Writer, done api.Purged) {
	forgotten, removed := "forgotten", "removed"
	if done.DryRun {
		forgotten, removed = "would be forgotten", "would be removed"
	}
	for _, name := range append(done.Tags, done.Images...) {
		fmt.Fprintf(w, "%s\t%s\n", name, forgotten)
	}
	for _, name := range done.Kept {
		fmt.Fprintf(w, "%s\tstays: pinned\n", name)
	}
	for _, b := range done.Blobs {
		fate := string(b.Fate)
		switch b.Fate {
		case api.FateNotHeld:
			continue
		case api.FateRemoved:
			fate = removed
		case api.FateShared:
			fate = "stays: another image needs it"
		case api.FateInUse:
			fate = "stays: in use"
		case api.FatePinned:
			fate = "stays: pinned"
		case api.FateFailed:
			fate = "stays: " + b.Error
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", oci.Short(b.Digest), fate, size(b.Size))
	}
	fmt.Fprintf(w, "in all\t%s\t%s\n", removed, size(done.RemovedBytes))
}
