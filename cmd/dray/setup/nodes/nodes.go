// Package nodes has a subcommand for the Helm chart, whose DaemonSet runs dray setup on each node.
// The subcommand waits until all nodes are done, or keeps a container of the DaemonSet running.
package nodes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"dray/cmd/dray/usage"
)

// Command returns the subcommand nodes.
func Command(stdout, stderr io.Writer) *cobra.Command {
	w := waiting{stdout: stdout, stderr: stderr, now: time.Now, pause: pause}
	hold := false
	cmd := &cobra.Command{
		Use:   "nodes [DAEMONSET]",
		Short: "Wait until a DaemonSet of Kubernetes has set up all nodes",
		Long: `nodes is for the Helm chart of dray, which sets up the nodes of a cluster by a
DaemonSet whose init containers run dray setup containerd.

nodes waits until all nodes have run the init containers of DAEMONSET. It runs
in a pod whose service account may get this DaemonSet. With --hold, it does
nothing until it receives SIGTERM, because the containers of a DaemonSet must
not end.`,
		Example: "  dray setup nodes dray-nodes-undo --namespace dray --timeout 4m\n  dray setup nodes --hold",
		Args:    usage.Between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if hold != (len(args) == 0) {
				return fmt.Errorf("name a DaemonSet, or set --hold; %w", usage.Err)
			}
			if hold {
				<-cmd.Context().Done()
				return nil
			}
			w.name = args[0]
			return w.run(cmd.Context())
		},
	}
	set := cmd.Flags()
	set.BoolVar(&hold, "hold", false, "do nothing until SIGTERM")
	set.StringVar(&w.namespace, "namespace", "", "namespace of the DaemonSet (default: that of the pod)")
	set.DurationVar(&w.timeout, "timeout", 4*time.Minute, "time after which to give up")
	set.StringVar(&w.account, "service-account", "/var/run/secrets/kubernetes.io/serviceaccount", "directory with the token and the authority of the API")
	return cmd
}

// waiting waits for one DaemonSet.
type waiting struct {
	stdout, stderr           io.Writer
	namespace, name, account string
	timeout                  time.Duration
	now                      func() time.Time
	pause                    func(context.Context, time.Duration)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// run asks the API every two seconds. After a failure, it asks again, because the API may be
// unavailable for a short time. If the API refuses the request, run returns the error.
func (w waiting) run(ctx context.Context) error {
	cluster, err := inCluster(w.account, os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	if err != nil {
		return err
	}
	namespace := cmp.Or(w.namespace, cluster.namespace)
	end := w.now().Add(w.timeout)
	told := ""
	for {
		set, err := cluster.daemonSet(ctx, namespace, w.name)
		state := fmt.Sprintf("%d of %d nodes are done", set.Status.NumberReady, set.Status.DesiredNumberScheduled)
		switch {
		case err != nil && (ctx.Err() != nil || errors.Is(err, errRefused)):
			return err
		case err != nil:
			state = err.Error()
		case set.done():
			_, err := fmt.Fprintln(w.stdout, state)
			return err
		}
		if state != told {
			told = state
			fmt.Fprintln(w.stderr, state)
		}
		if !w.now().Before(end) {
			return fmt.Errorf("DaemonSet %s/%s: %s after %s; kubectl -n %s get pods -o wide shows the nodes that are missing", namespace, w.name, state, w.timeout, namespace)
		}
		w.pause(ctx, 2*time.Second)
	}
}
