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
		Short: "Remove images from the cache of a running dray",
		Long: `purge removes a tag, an image (by digest), or all images of the repositories that
match a pattern, with the blobs that no other image needs. dray fetches them from
the upstream when a client requests them again.

Write NAME as clients write it: docker.io/library/alpine:3,
dray.example.com/team/app:1, or UPSTREAM/REPOSITORY:TAG. If another tag points to
the same image, purge removes only the tag.

purge does not remove a pinned image or its tags: it fails if you name one, and
skips them if you use a pattern. To remove them, use --force, or run dray unpin
first. Without --force, purge also keeps blobs that a client is reading, and blobs
that an image needs, even if you name a blob by its digest. A client that is reading
a removed blob still gets all of it. purge never removes blobs that a push needs.`,
		Example: "  dray purge docker.io/library/alpine:3\n  dray purge --repository 'ecr/team/*' --dry-run",
		Args:    usage.Between(0, 1),
	}, func(ctx context.Context, o *operator, args []string) error {
		q.Name = strings.Join(args, "")
		if (q.Name == "") == (q.Repository == "") {
			return fmt.Errorf("name an image or a digest, or set --repository; %w", usage.Err)
		}
		return change(ctx, o, "purge", q, purgedTable)
	})
	cmd.Flags().StringVar(&q.Repository, "repository", "", "purge all repositories that match PATTERN, which is UPSTREAM/REPOSITORY or REPOSITORY; * matches any characters")
	cmd.Flags().BoolVar(&q.DryRun, "dry-run", false, "print the images that would be removed, and remove nothing")
	cmd.Flags().BoolVar(&q.Force, "force", false, "also remove content that is pinned, that clients are reading, or that images need")
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
		fmt.Fprintf(w, "%s\tnot removed: pinned\n", name)
	}
	for _, b := range done.Blobs {
		fate := string(b.Fate)
		switch b.Fate {
		case api.FateNotHeld:
			continue
		case api.FateRemoved:
			fate = removed
		case api.FateShared:
			fate = "not removed: another image needs it"
		case api.FateInUse:
			fate = "not removed: in use"
		case api.FatePinned:
			fate = "not removed: pinned, or a push needs it"
		case api.FateFailed:
			fate = "not removed: " + b.Error
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", oci.Short(b.Digest), fate, size(b.Size))
	}
	fmt.Fprintf(w, "total\t%s\t%s\n", removed, size(done.RemovedBytes))
}
