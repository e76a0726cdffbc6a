package nodes

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// errRefused marks the error of a request as final. If an error wraps errRefused, the same request
// would fail again.
var errRefused = errors.New("the API refuses the request")

// cluster is the API of the Kubernetes cluster that this process runs in.
type cluster struct {
	url       string
	namespace string // the namespace of the pod
	token     string
	client    *http.Client
}

// inCluster finds the API as pods do: by host and port, which come from environment variables, and
// by the files of the service account (kubernetes.io, "Accessing the Kubernetes API from a Pod").
func inCluster(account, host, port string) (*cluster, error) {
	if host == "" || port == "" {
		return nil, errors.New("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set; run dray setup nodes in a pod")
	}
	files := map[string][]byte{"token": nil, "ca.crt": nil, "namespace": nil}
	for name := range files {
		text, err := os.ReadFile(filepath.Join(account, name))
		if err != nil {
			return nil, fmt.Errorf("the service account of the pod: %w; set automountServiceAccountToken", err)
		}
		files[name] = bytes.TrimSpace(text)
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(files["ca.crt"]) {
		return nil, fmt.Errorf("%s contains no PEM certificate", filepath.Join(account, "ca.crt"))
	}
	return &cluster{
		url: "https://" + net.JoinHostPort(host, port), namespace: string(files["namespace"]), token: string(files["token"]),
		client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authorities, MinVersion: tls.VersionTLS12}}},
	}, nil
}

// daemonSet has the fields of a DaemonSet (apps/v1) that show its progress.
type daemonSet struct {
	Metadata struct {
		Generation int64
	}
	Status struct {
		ObservedGeneration     int64
		DesiredNumberScheduled int
		UpdatedNumberScheduled int
		NumberReady            int
	}
}

// done reports whether the current generation of the DaemonSet is ready on all nodes. A pod is
// ready only after its init containers have succeeded.
func (d daemonSet) done() bool {
	s := d.Status
	return d.Metadata.Generation > 0 && s.ObservedGeneration >= d.Metadata.Generation &&
		s.UpdatedNumberScheduled >= s.DesiredNumberScheduled && s.NumberReady >= s.DesiredNumberScheduled
}

func (c *cluster) daemonSet(ctx context.Context, namespace, name string) (set daemonSet, err error) {
	path, err := url.JoinPath(c.url, "apis/apps/v1/namespaces", url.PathEscape(namespace), "daemonsets", url.PathEscape(name))
	if err != nil {
		return set, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, path, http.NoBody)
	if err != nil {
		return set, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.client.Do(req)
	if err != nil {
		return set, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	switch {
	case err != nil:
		return set, fmt.Errorf("read DaemonSet %s/%s: %w", namespace, name, err)
	case resp.StatusCode == http.StatusOK:
		if err := json.Unmarshal(body, &set); err != nil {
			return set, fmt.Errorf("read DaemonSet %s/%s: %w", namespace, name, err)
		}
		return set, nil
	case resp.StatusCode < http.StatusInternalServerError && resp.StatusCode != http.StatusTooManyRequests:
		return set, fmt.Errorf("get DaemonSet %s/%s: %s: %w; let the service account get it", namespace, name, resp.Status, errRefused)
	}
	return set, fmt.Errorf("get DaemonSet %s/%s: %s", namespace, name, resp.Status)
}
