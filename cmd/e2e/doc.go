// Package e2e drives the built dray binary with the clients people use: Docker, Podman, Skopeo,
// containerd, BuildKit and go-containerregistry. It has tests only.
//
// Invariants:
//   - dray is a process of its own, set up with deploy/dray.yaml; the registries behind it are doubles that count what they are asked.
//   - Clients are set up with the files of deploy/clients, at the places where their manuals want them, in a mount namespace of their own:
//     nothing of the machine's own configuration is read or changed, and a daemon that already runs is left alone.
//   - Every address is on the loopback interface. Names of public registries lead there too, where nobody listens: what a client gets, it got
//     through dray.
//   - A client that is missing is a skip that says which; with DRAY_REQUIRE_CLIENTS=1 it is a failure.
//   - Every process has its own directories and is stopped by the test that started it.
package e2e
