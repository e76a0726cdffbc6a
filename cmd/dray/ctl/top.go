package ctl

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"dray/cmd/dray/top"
	"dray/cmd/dray/usage"
	"dray/mirror/admin/api"
)

func topCommand(in Options) *cobra.Command {
	var once bool
	cmd := in.operate(&cobra.Command{
		Use:   "top",
		Short: "Show the images that clients pull and push now",
		Long: `top shows the pulls and pushes of clients now and within the last minute: the
client, the image, how many of its layers the client has requested, how many
bytes were sent, how fast, and from which source. A client does not request
layers that it already has, so "3 of 7" may be all that it needs. Failures are
below the line of the pull or push, with the ID of the request in the log.

On a terminal, top uses the whole screen until you press Ctrl-C. Otherwise it
prints a line when a pull or push begins, every 5 seconds while it continues,
and when it ends. With --json, it prints all pulls and pushes as a JSON object
on one line, once a second. --once prints the present state and exits.`,
		Example: `  dray top
  dray top --once
  dray top --json | jq -c '.pulls[] | select(.failures > 0)'`,
		Args: usage.NoArguments,
	}, func(ctx context.Context, o *operator, _ []string) error {
		if once {
			return show(ctx, o, "live", nil, top.Table)
		}
		return o.top(ctx)
	})
	cmd.Flags().BoolVar(&once, "once", false, "print the present state as a table, and exit")
	return cmd
}

// reopenAfter is the time between the end of a stream and the request for another one.
const reopenAfter = time.Second

// top shows each state that dray sends, until ctx ends. It then returns nil. dray ends each stream
// after a while. When it does, top opens another stream.
func (o *operator) top(ctx context.Context) error {
	show, leave := o.display()
	defer leave()
	for {
		resp, err := o.send(ctx, http.MethodGet, "live/events", nil)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		err = eachEvent(resp.Body, show)
		_ = resp.Body.Close() // err says how the stream ended
		if failed, ok := errors.AsType[*api.Error](err); ok {
			return failed
		}
		if !errors.Is(err, io.EOF) && ctx.Err() == nil {
			return fmt.Errorf("%s sends no more: %w", o.base, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reopenAfter):
		}
	}
}

// display returns the function show, which shows a state in the form that suits the output. The
// caller calls the function restore at the end. On a terminal, restore brings back the former
// screen.
func (o *operator) display() (show func(api.Live) error, restore func()) {
	if o.json {
		out := json.NewEncoder(o.stdout)
		return func(l api.Live) error { return out.Encode(l) }, func() {}
	}
	screen, ok := o.stdout.(*os.File)
	if !ok || !isTerminal(screen) || os.Getenv("TERM") == "dumb" {
		l := top.Lines{Out: o.stdout}
		return l.Show, func() {}
	}
	s := top.Screen{Out: screen, Size: func() (int, int) {
		width, height, err := term.GetSize(int(screen.Fd()))
		if err != nil || width <= 0 || height <= 0 {
			return 80, 24
		}
		return width, height
	}}
	s.Enter()
	return func(l api.Live) error { s.Show(l); return nil }, s.Leave
}

// maxEvent bounds an event in bytes. An event of some 2000 pulls and pushes fits.
const maxEvent = 16 << 20

// eachEvent calls handler for each item of an [admin.Watch] when it arrives. It returns the error
// of handler, the error that dray has sent, or the error of the stream, which is io.EOF if dray has
// ended the stream.
func eachEvent[A any](stream io.Reader, handler func(A) error) error {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, maxEvent)
	failed := false
	for lines.Scan() {
		field, data, _ := bytes.Cut(lines.Bytes(), []byte(": "))
		switch {
		case string(field) == "event":
			failed = string(data) == "error"
		case string(field) != "data":
		case failed:
			var f api.Failure
			if err := json.Unmarshal(data, &f); err != nil {
				return fmt.Errorf("cannot decode an error: %w", err)
			}
			if f.Error == nil {
				return fmt.Errorf("dray sent an error without a text: %s", data)
			}
			return f.Error
		default:
			var item A
			if err := json.Unmarshal(data, &item); err != nil {
				return fmt.Errorf("cannot decode an event: %w", err)
			}
			if err := handler(item); err != nil {
				return err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.EOF
}
