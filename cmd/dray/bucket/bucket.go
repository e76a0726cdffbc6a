// Package bucket makes the client for the S3 bucket in the configuration, and has the subcommand
// that prepares this bucket.
package bucket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"dray/cache/disk"
	"dray/cache/s3"
	"dray/cmd/dray/config"
	"dray/cmd/dray/usage"
)

// address returns the address of the bucket in a valid configuration.
func address(c config.Bucket) s3.Address {
	name, prefix, _ := c.Place()
	return s3.Address{Bucket: name, Prefix: prefix, Region: c.Region, Endpoint: c.Endpoint, PathStyle: c.PathStyle, RoleARN: c.RoleARN}
}

// Open returns the bucket of a valid configuration. dray copies blobs from the directory dir to the
// bucket. Open sends no request.
func Open(c config.Bucket, cfg aws.Config, dir *disk.Dir, log *slog.Logger) *s3.Bucket {
	return s3.New(s3.Options{
		Address: address(c), Config: cfg, KMSKey: c.KMSKey, Patience: c.Timeout.Std(), MaxAge: c.MaxAge.Std(), Logger: log,
		Content: func(d digest.Digest) (s3.Content, error) { return dir.Peek(d) },
	})
}

// Options configure the subcommand.
type Options struct {
	Stdout io.Writer
	// Load returns the configuration that the subcommand serve would use.
	Load func() (config.Config, error)
	// AWS returns the configuration of the AWS SDK.
	AWS func(context.Context) (aws.Config, error)
}

// Command returns the subcommand of setup that prepares a bucket.
func Command(o Options) *cobra.Command {
	check := false
	cmd := &cobra.Command{
		Use:   "bucket",
		Short: "Prepare the configured bucket",
		Long: `bucket adds a rule to the lifecycle of the configured bucket. The rule deletes
objects of dray after bucket.max_age, and uploads that were not completed. Other
rules stay as they are. bucket also blocks all public access to the bucket.
With --check, it changes nothing, and fails if a setting is missing. If a store
other than S3 does not support a setting, bucket prints it as unsupported, which
is no failure.

bucket uses the credentials that the AWS SDK finds, and bucket.role_arn. They
need the rights s3:GetLifecycleConfiguration and s3:GetBucketPublicAccessBlock,
and without --check also s3:PutLifecycleConfiguration and
s3:PutBucketPublicAccessBlock. A running dray needs none of these rights.`,
		Example: `  dray setup bucket --config /etc/dray/dray.yaml --check
  dray setup bucket --config /etc/dray/dray.yaml`,
		Args: usage.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := ownFlags(cmd); err != nil {
				return err
			}
			return run(cmd, o, s3.Mode(!check))
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "change nothing, and fail if a setting is missing")
	return cmd
}

// ownFlags returns an error if the user has set a flag that bucket inherits from setup, but that
// only the setup of clients uses.
func ownFlags(cmd *cobra.Command) error {
	for _, name := range []string{"url", "listener", "registry", "ca", "client-version", "dial-timeout", "root", "write", "undo"} {
		if cmd.Flags().Changed(name) {
			return fmt.Errorf("setup bucket has no flag --%s; %w", name, usage.Err)
		}
	}
	return nil
}

func run(cmd *cobra.Command, o Options, mode s3.Mode) error {
	c, err := o.Load()
	if err != nil {
		return err
	}
	if c.Bucket.URL == "" {
		return errors.New("the configuration has no bucket; set bucket.url")
	}
	cfg, err := o.AWS(cmd.Context())
	if err != nil {
		return err
	}
	settings := s3.NewSettings(address(c.Bucket), cfg, c.Bucket.MaxAge.Std())
	defer settings.Close()
	all, err := settings.Apply(cmd.Context(), mode)
	missing, printed := report(cmd, o, all)
	switch {
	case err != nil:
		return errors.Join(fmt.Errorf("setup bucket: %w", err), printed)
	case printed != nil:
		return printed
	case missing > 0:
		return fmt.Errorf("%d settings of the bucket are missing; run dray setup bucket without --check", missing)
	}
	return nil
}

// report prints settings, and returns how many are still missing.
func report(cmd *cobra.Command, o Options, all []s3.Setting) (missing int, err error) {
	asJSON, _ := cmd.Flags().GetBool("json")
	if asJSON {
		enc := json.NewEncoder(o.Stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(all)
	}
	for _, s := range all {
		state := "ok"
		switch {
		case s.Written:
			state = "written"
		case s.Unsupported:
			state = "unsupported"
		case s.Missing:
			state = "missing"
			missing++
		}
		if !asJSON && err == nil {
			_, err = fmt.Fprintf(o.Stdout, "%s: %s\n", state, s.Name)
		}
	}
	return missing, err
}
