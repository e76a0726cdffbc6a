package ctl

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dray/cmd/dray/usage"
	"dray/mirror/admin/api"
	"dray/upstream/oci"
)

func lsCommand(in Options) *cobra.Command {
	var blobs bool
	var q imageQuery
	cmd := in.operate(&cobra.Command{
		Use:   "ls [PATTERN]",
		Short: "List the images, or the blobs, that a running dray holds",
		Long: `ls lists images by repository: their tags and digest, how many of their parts (manifests, configuration, layers) are held, and when one of
them was last used, whether a pin keeps them, and whether they are queued: pushed, to be had here, and still to be forwarded to their registry (dray queue). PATTERN chooses repositories by name, as UPSTREAM/REPOSITORY or REPOSITORY; * in it stands for any characters. Images
whose repository is not known, because facts were lost, stand below "?". That nothing matches is told on standard error and is no failure. Manifests that are part of a listed index are left out unless --all says otherwise.

With --blobs it lists the blobs on disk instead, those that were not used for the longest time first.`,
		Example: "  dray ls\n  dray ls 'ecr/team/*' --json\n  dray ls --blobs",
		Args:    usage.Between(0, 1),
	}, func(ctx context.Context, o *operator, args []string) error {
		q.pattern = strings.Join(args, "")
		if !blobs {
			return o.listImages(ctx, q)
		}
		if q.pattern != "" {
			return fmt.Errorf("blobs belong to no repository, so --blobs takes no pattern; %w", usage.Err)
		}
		return o.listBlobs(ctx)
	})
	cmd.Flags().BoolVar(&blobs, "blobs", false, "list blobs")
	cmd.Flags().BoolVar(&q.parts, "all", false, "list the parts of indexes, too")
	return cmd
}

// imageQuery selects the images to list.
type imageQuery struct {
	pattern string // of repository names; empty means all
	parts   bool   // include manifests that are part of an index
}

func (o *operator) listImages(ctx context.Context, q imageQuery) error {
	params := url.Values{}
	if q.pattern != "" {
		params.Set("repository", q.pattern)
	}
	found, err := listing[api.Image](ctx, o, "images", params)
	if err != nil {
		return err
	}
	found = slices.DeleteFunc(found, func(i api.Image) bool { return i.Part && !q.parts })
	if len(found) == 0 && q.pattern != "" {
		fmt.Fprintf(o.stderr, "dray: no image is in a repository that matches %q\n", q.pattern)
	}
	return o.print(api.Items[api.Image]{Items: found}, func(w io.Writer) {
		fmt.Fprintln(w, "REPOSITORY\tTAGS\tDIGEST\tHELD\tSIZE\tLAST USE\tPINNED\tQUEUED")
		for _, i := range found {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d of %d\t%s\t%s\t%s\t%s\n", repositoryOf(i), cmp.Or(strings.Join(i.Tags, " "), "-"), oci.Short(i.Digest),
				i.HeldParts, i.Parts, size(i.HeldBytes), day(i.LastUse), yes(i.Pinned), yes(i.Queued))
		}
	})
}

func (o *operator) listBlobs(ctx context.Context) error {
	found, err := listing[api.Blob](ctx, o, "blobs", nil)
	if err != nil {
		return err
	}
	slices.SortFunc(found, func(a, b api.Blob) int {
		return cmp.Or(a.LastUse.Compare(b.LastUse), cmp.Compare(a.Digest, b.Digest))
	})
	return o.print(api.Items[api.Blob]{Items: found}, func(w io.Writer) {
		fmt.Fprintln(w, "DIGEST\tSIZE\tLAST USE\tHITS\tPOOL\tSTATE")
		for _, b := range found {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", b.Digest, size(b.Size), day(b.LastUse), hits(b.Hits), b.Pool, cmp.Or(state(b), "-"))
		}
	})
}

func repositoryOf(i api.Image) string {
	if i.Upstream == "" {
		return "?"
	}
	return i.Upstream + "/" + i.Repository
}

// state returns the properties of a blob that matter for eviction and verification.
func state(b api.Blob) string {
	var words []string
	for _, s := range []struct {
		is   bool
		word string
	}{{b.Open, "open"}, {b.Pinned, "pinned"}, {b.Proven, "proven"}, {b.Unverified, "unverified"}} {
		if s.is {
			words = append(words, s.word)
		}
	}
	return strings.Join(words, " ")
}

func hits(n int) string {
	if n >= 3 {
		return "3+" // dray counts no further
	}
	return fmt.Sprint(n)
}

func day(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04")
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "-"
}
