package backup

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"dray/cmd/dray/directories"
	"dray/cmd/dray/usage"
)

// Options configure the subcommands.
type Options struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Directories returns the directories that `dray serve` would use.
	Directories func() (directories.Directories, error)
}

// Commands returns the subcommands.
func Commands(o Options) []*cobra.Command { return []*cobra.Command{backup(o), restore(o)} }

func backup(o Options) *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy queued pushes, hosted repositories and pins into a file",
		Long: `backup copies the data that exists only here into a file: the queue of pushes,
hosted repositories and pins, with all layers that queued pushes and hosted
repositories need. dray may be running. If FILE is -, backup writes to standard
output.

The file contains images, so only its owner can read it.`,
		Args: usage.Between(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			d, err := o.Directories()
			if err != nil {
				return err
			}
			sum, err := toFile(args[0], o.Stdout, func(w io.Writer) (Summary, error) { return Write(d, w) })
			if err != nil {
				return fmt.Errorf("backup: %w", err)
			}
			fmt.Fprintf(o.Stderr, "saved %d blobs (%d bytes) and %d lists\n", sum.Blobs, sum.Bytes, sum.Files)
			if n := len(sum.Missing); n > 0 {
				return fmt.Errorf("backup: the cache has lost %d blobs that queued pushes or hosted repositories need, such as %s; the backup has everything else", n, sum.Missing[0])
			}
			return nil
		},
	}
}

// toFile calls writeTo with a file. The file gets its name only when it is complete.
func toFile(name string, stdout io.Writer, writeTo func(io.Writer) (Summary, error)) (Summary, error) {
	if name == "-" {
		return writeTo(stdout)
	}
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*.new") // with mode 0600
	if err != nil {
		return Summary{}, err
	}
	defer os.Remove(f.Name()) // fails after the file was renamed
	sum, err := writeTo(f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return sum, err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return sum, err
	}
	return sum, directories.Sync(filepath.Dir(name))
}

func restore(o Options) *cobra.Command {
	return &cobra.Command{
		Use:   "restore FILE",
		Short: "Restore a backup",
		Long: `restore copies the content of a backup into the directories of the configuration.
Stop dray first. The state directory must have no queued pushes and no hosted
repositories. A pin of the backup replaces a pin of the same name, and the other
pins stay. Run restore as the user of dray. If FILE is -, restore reads from
standard input.

restore verifies the digest of each layer, and changes nothing if the backup is
incomplete.`,
		Args: usage.Between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := o.Directories()
			if err != nil {
				return err
			}
			from := o.Stdin
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("restore: %w", err)
				}
				defer f.Close()
				from = f
			}
			sum, err := Restore(cmd.Context(), d, from, slog.New(slog.NewTextHandler(o.Stderr, nil)))
			if err != nil {
				return fmt.Errorf("restore: %w", err)
			}
			fmt.Fprintf(o.Stderr, "restored %d blobs (%d bytes) and %d lists\n", sum.Blobs, sum.Bytes, sum.Files)
			return nil
		},
	}
}
