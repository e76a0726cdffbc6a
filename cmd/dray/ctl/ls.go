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
		Short: "List the images or blobs that a running dray holds",
		Long: `ls lists the images that a running dray holds, by repository. For each image, it
prints the tags, the digest, how many parts (manifests, configurations, layers) are
in the cache, when a client last used one of them, and whether the image is pinned
or queued. dray serves a queued image, but has not forwarded it to its registry yet
(see dray queue).

PATTERN selects repositories as UPSTREAM/REPOSITORY or REPOSITORY, where * matches
any characters. If nothing matches, ls prints a message to standard error and exits
with 0. Images whose repository is unknown, because facts were lost, are listed
under "?". Manifests that belong to a listed index are listed only with --all.

--blobs lists the blobs on disk instead, the least recently used first.`,
		Example: "  dray ls\n  dray ls 'ecr/team/*' --json\n  dray ls --blobs",
		Args:    usage.Between(0, 1),
	}, func(ctx context.Context, o *operator, args []string) error {
		q.pattern = strings.Join(args, "")
		if !blobs {
			return o.listImages(ctx, q)
		}
		if q.pattern != "" {
			return fmt.Errorf("--blobs takes no pattern, because blobs do not belong to repositories; %w", usage.Err)
		}
		return o.listBlobs(ctx)
	})
	cmd.Flags().BoolVar(&blobs, "blobs", false, "list blobs instead of images")
	cmd.Flags().BoolVar(&q.parts, "all", false, "also list the manifests that belong to indexes")
	return cmd
}

// imageQuery selects the images to list.
type imageQuery struct {
	pattern string // a pattern of repository names; empty means all
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
		fmt.Fprintf(o.stderr, "dray: no image in a repository that matches %q\n", q.pattern)
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
