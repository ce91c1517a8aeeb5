package tailnet

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The test program runs itself again as the first process of PID, mount and network namespaces of its own. When
// that process ends, however it does, the kernel kills the others and takes away every interface, mount and
// file that they made: there is nothing to clean up and nothing that could collide.
const inSandbox = "TOWPATH_INTEROP_SANDBOX"

func TestMain(m *testing.M) {
	if os.Getenv(inSandbox) != "" {
		if err := furnish(); err != nil {
			fmt.Fprintln(os.Stderr, "sandbox:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	err := enter()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sandbox:", err)
		os.Exit(1)
	}
}

func enter() error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	inside := exec.Command(self, os.Args[1:]...)
	inside.Stdin, inside.Stdout, inside.Stderr = os.Stdin, os.Stdout, os.Stderr
	inside.Env = append(os.Environ(), inSandbox+"=1")
	inside.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	// Pdeathsig is about the thread that started the process.
	runtime.LockOSThread()
	return inside.Run()
}

// furnish gives the sandbox a /run of its own, which holds the names of network namespaces, sshd's empty
// directory and all temporary files.
func furnish() error {
	const run = "/run"
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := unix.Mount("tmpfs", run, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("tmpfs: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("proc: %w", err)
	}
	for _, dir := range []string{run + "/sshd", run + "/tmp"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	return os.Setenv("TMPDIR", run+"/tmp")
}

// site is a network namespace joined to the hub, where the test itself runs. It has no route but its link.
type site string

// The addresses are of TEST-NET-1. Headscale wants names of two letters at least.
const (
	hubAddress = "192.0.2.1"
	siteA      = site("alice")
	siteB      = site("bob")
)

// lay builds the network: a bridge in the hub and a pair of interfaces to each site.
func lay(t *testing.T) {
	t.Helper()
	ip(t, "link set lo up")
	ip(t, "link add hub type bridge")
	ip(t, "address add "+hubAddress+"/24 dev hub")
	ip(t, "link set hub up")
	for i, s := range []site{siteA, siteB} {
		ip(t, fmt.Sprintf("netns add %s", s))
		ip(t, fmt.Sprintf("link add to-%s type veth peer name eth0 netns %s", s, s))
		ip(t, fmt.Sprintf("link set to-%s master hub up", s))
		ip(t, fmt.Sprintf("-n %s link set lo up", s))
		ip(t, fmt.Sprintf("-n %s address add 192.0.2.%d/24 dev eth0", s, 11+i))
		ip(t, fmt.Sprintf("-n %s link set eth0 up", s))
	}
}

func ip(t *testing.T, command string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", command, err, out)
	}
}

// command runs a program in the site.
func (s site) command(program string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", string(s), program}, args...)...)
}

// within runs f on a thread that is in the site: sockets that f makes stay there.
func (s site) within(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	there, err := os.Open("/run/netns/" + string(s))
	if err != nil {
		return err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	result := f()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		return err // the thread stays locked and so ends with the goroutine
	}
	runtime.UnlockOSThread()
	return result
}

func (s site) dial(network, address string) (conn net.Conn, err error) {
	err = s.within(func() (err error) {
		conn, err = net.Dial(network, address)
		return err
	})
	return conn, err
}

func (s site) listen(t *testing.T, address string) net.Listener {
	t.Helper()
	var l net.Listener
	if err := s.within(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func (s site) listenPacket(t *testing.T, address string) net.PacketConn {
	t.Helper()
	var c net.PacketConn
	if err := s.within(func() (err error) {
		c, err = net.ListenPacket("udp", address)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
