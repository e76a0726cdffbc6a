// Package e2e tests the built dray binary with the clients that people use: Docker, Podman, Skopeo,
// containerd, BuildKit and go-containerregistry. It also tests dray behind nginx. It has tests
// only.
//
// Invariants:
//   - dray is a process of its own, configured with deploy/dray.yaml. The registries behind it are
//     doubles that count requests.
//   - Clients run in a mount namespace with a copy of /etc. There, the command "dray setup"
//     configures them, at the paths that their manuals name. Apart from copying it, tests neither
//     read nor change the machine's configuration. They leave running daemons alone.
//   - Every address is on the loopback interface. Names of public registries resolve to a loopback
//     address on which nothing listens, so clients get content through dray only.
//   - A test skips a missing client and names it. With DRAY_REQUIRE_CLIENTS=1 it fails instead.
//   - Every process has its own directories and is stopped by the test that started it.
package e2e
