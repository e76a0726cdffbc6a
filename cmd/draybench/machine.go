package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

type fact struct{ what, value string }

// describe returns the facts about the machine that matter for the measurements. None of them
// identifies the machine.
func describe(ctx context.Context, dir, network string, t tools) []fact {
	facts := []fact{
		{"processor", fmt.Sprintf("%s, %d cores", lineOf("/proc/cpuinfo", "model name"), runtime.NumCPU())},
		{"memory", lineOf("/proc/meminfo", "MemTotal")},
		{"kernel", "Linux " + firstLine(os.ReadFile("/proc/sys/kernel/osrelease"))},
		{"network", fmt.Sprintf("loopback interface in %s, TCP congestion control %s", network, congestion())},
		{"cache on", fileSystem(dir)},
		{"Go", runtime.Version()},
		{dray, "this tree, its program last changed by " + firstLine(exec.CommandContext(ctx, "git", "log", "-1", "--format=%h", "--", ":/cache", ":/cmd/dray", ":/mirror", ":/upstream").Output())},
	}
	if t.Nginx != "" {
		out, err := exec.CommandContext(ctx, t.Nginx, "-v").CombinedOutput()
		facts = append(facts, fact{nginx, strings.TrimPrefix(firstLine(out, err), "nginx version: ")})
	}
	if t.Distribution != "" {
		facts = append(facts, fact{distribution, distributionVersion})
	}
	return facts
}

func firstLine(b []byte, err error) string {
	if err != nil {
		return "unknown"
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return string(bytes.TrimSpace(line))
}

// lineOf returns the value of "name : value" in a file of /proc.
func lineOf(path, name string) string {
	b, err := os.ReadFile(path)
	if err == nil {
		for line := range strings.Lines(string(b)) {
			if before, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(before) == name {
				return strings.TrimSpace(value)
			}
		}
	}
	return "unknown"
}

// fileSystem returns the name of the file system that has dir. If it does not know the name, it
// returns the magic number, statfs(2).
func fileSystem(dir string) string {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return "unknown"
	}
	names := map[int64]string{0xef53: "ext4", 0x01021994: "tmpfs", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x794c7630: "overlayfs"}
	if name, ok := names[int64(s.Type)]; ok {
		return name
	}
	return fmt.Sprintf("file system %#x", s.Type)
}

// meter measures the processor time of other programs.
type meter struct {
	begun time.Time
	busy  time.Duration
	own   time.Duration
}

func startMeter() meter { return meter{time.Now(), busyTime(), ownTime()} }

// otherCores returns the average number of cores that other programs used. Before the call, this
// process must have waited for the end of all its servers: only then does the time of the servers
// count as time of this process. The time of interrupts is left out, because it belongs to no
// process.
func (m meter) otherCores() float64 {
	others := (busyTime() - m.busy) - (ownTime() - m.own)
	return max(0, others.Seconds()/time.Since(m.begun).Seconds())
}

// busyTime returns the user, nice and system time of all processes, proc_stat(5).
func busyTime() time.Duration {
	var user, nice, system int64
	line := firstLine(os.ReadFile("/proc/stat"))
	if _, err := fmt.Sscanf(line, "cpu %d %d %d", &user, &nice, &system); err != nil {
		return 0
	}
	return time.Duration(user+nice+system) * time.Second / userHz
}

// ownTime returns the user and system time of this process and of the children that it has waited
// for.
func ownTime() time.Duration {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}

// certify makes a certificate for this run, and returns a client configuration that trusts it. The
// client configuration does not offer HTTP/2, because clients fetch blobs faster over HTTP/1.1.
func (b *bench) certify() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), BasicConstraintsValid: true, IsCA: true}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	b.certificate, b.key = filepath.Join(b.dir, "cert.pem"), filepath.Join(b.dir, "key.pem")
	for path, block := range map[string]*pem.Block{b.certificate: {Type: "CERTIFICATE", Bytes: certificate}, b.key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			return nil, err
		}
	}
	parsed, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", NextProtos: []string{"http/1.1"}}, nil
}
