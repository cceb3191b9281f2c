package watchdog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"pgpool-go/conf"
)

// Where the commands that move the address are left at their defaults, which need
// sudo, ip, arping and an interface named eth0, and the process may do it itself,
// no program is run: the kernel is asked by netlink, and neighbours are told by an
// ARP packet of our own (for IPv6, a neighbour advertisement).

// movesItself reports that the address is brought up and down, and that it is
// announced, without programs.
func movesItself(c *conf.Config) (moves, announces bool) {
	usual := conf.Default()
	moves = c.IfUpCmd == usual.IfUpCmd && c.IfDownCmd == usual.IfDownCmd && permitted(unix.CAP_NET_ADMIN)
	return moves, c.ArpingCmd == usual.ArpingCmd && permitted(unix.CAP_NET_RAW)
}

// permitted reports that this process has a capability.
func permitted(capability int) bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&head, &data[0]) == nil && data[capability/32].Effective&(1<<(capability%32)) != 0
}

// place is where the address goes: the interface with the narrowest network that
// it is in, and under that network's mask; else where the default command puts it.
func place(ip net.IP) (netlink.Link, *netlink.Addr, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, nil, err
	}
	var best netlink.Link
	bits := -1
	mask := net.CIDRMask(24, 32)
	if ip.To4() == nil {
		mask = net.CIDRMask(64, 128)
	}
	for _, l := range links {
		if l.Attrs().Flags&net.FlagLoopback != 0 {
			continue
		}
		addresses, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return nil, nil, err
		}
		if best == nil && l.Attrs().Name == usualInterface {
			best = l
		}
		for _, a := range addresses {
			if n, _ := a.Mask.Size(); a.Contains(ip) && !a.IP.Equal(ip) && n > bits {
				best, bits, mask = l, n, a.Mask
			}
		}
	}
	if best == nil {
		return nil, nil, fmt.Errorf("no interface has a network with %s, and there is no %s: set if_up_cmd, if_down_cmd and arping_cmd", ip, usualInterface)
	}
	a := &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: mask}}
	if ip.To4() == nil {
		a.Flags = unix.IFA_F_NODAD // it is held by one node only, and at once
	} else if label := best.Attrs().Name + ":0"; len(label) < unix.IFNAMSIZ {
		a.Label = label
	}
	return best, a, nil
}

const usualInterface = "eth0"

// raise brings the address up. The kernel takes it down by itself after so many
// seconds, unless it is raised again by then; 0: never.
func raise(ip net.IP, seconds int) error {
	l, a, err := place(ip)
	if err != nil {
		return err
	}
	if seconds > 0 {
		a.ValidLft, a.PreferedLft = seconds, seconds
	} else {
		a.ValidLft, a.PreferedLft = math.MaxUint32, math.MaxUint32
	}
	if err := netlink.AddrReplace(l, a); err != nil {
		return fmt.Errorf("could not bring up %s on %s: %w", a.IPNet, l.Attrs().Name, err)
	}
	return nil
}

// unset takes the address down, wherever it is.
func unset(ip net.IP) error {
	links, err := netlink.LinkList()
	for _, l := range links {
		addresses, e := netlink.AddrList(l, netlink.FAMILY_ALL)
		err = errors.Join(err, e)
		for _, a := range addresses {
			if a.IP.Equal(ip) {
				err = errors.Join(err, netlink.AddrDel(l, &netlink.Addr{IPNet: a.IPNet}))
			}
		}
	}
	return err
}

// proclaim tells the neighbours, by the interface that has the address, whose it
// is now.
func proclaim(ip net.IP) error {
	all, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range all {
		addresses, _ := i.Addrs()
		for _, a := range addresses {
			if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip) && len(i.HardwareAddr) == 6 {
				if ip.To4() == nil {
					return advertise(ip, i)
				}
				return gratuitousARP(ip, i)
			}
		}
	}
	return nil
}

// gratuitousARP asks for the own address and answers at once: of some neighbours
// one, of some the other refreshes what they know (RFC 5227).
func gratuitousARP(ip net.IP, i net.Interface) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	to := &unix.SockaddrLinklayer{Protocol: 0x0608, Ifindex: i.Index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}} // ETH_P_ARP, as on the wire
	for operation := uint16(1); operation <= 2; operation++ {
		p := []byte{0, 1, 8, 0, 6, 4}
		p = binary.BigEndian.AppendUint16(p, operation)
		p = append(append(p, i.HardwareAddr...), ip.To4()...)
		p = append(append(p, 255, 255, 255, 255, 255, 255), ip.To4()...)
		if err := unix.Sendto(fd, p, 0, to); err != nil {
			return fmt.Errorf("could not announce %s on %s: %w", ip, i.Name, err)
		}
	}
	return nil
}

// advertise sends an unsolicited neighbour advertisement (RFC 4861, 7.2.6). The
// kernel fills in its checksum.
func advertise(ip net.IP, i net.Interface) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const noRouterOnTheWay = 255
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, noRouterOnTheWay); err != nil {
		return err
	}
	from := &unix.SockaddrInet6{Addr: [16]byte(ip.To16()), ZoneId: uint32(i.Index)}
	if err := unix.Bind(fd, from); err != nil {
		return err
	}
	p := append([]byte{136, 0, 0, 0, 1 << 5 /* override */, 0, 0, 0}, ip.To16()...)
	p = append(append(p, 2, 1), i.HardwareAddr...)
	everybody := &unix.SockaddrInet6{Addr: [16]byte(net.IPv6linklocalallnodes), ZoneId: uint32(i.Index)}
	return unix.Sendto(fd, p, 0, everybody)
}

// The guardian's means, by what it was told: our own, or the operator's commands.

func (g *guardian) bringUp(ctx context.Context, lease time.Duration) error {
	if !g.Moves {
		return execute(ctx, g.Up)
	}
	return raise(net.ParseIP(g.IP), g.seconds(lease))
}

func (g *guardian) takeDown(ctx context.Context) error {
	if !g.Moves {
		return execute(ctx, g.Down)
	}
	return unset(net.ParseIP(g.IP))
}

func (g *guardian) tellNeighbours(ctx context.Context) error {
	if !g.Announces {
		return execute(ctx, g.Arping)
	}
	return proclaim(net.ParseIP(g.IP))
}

// seconds is how long the kernel may keep the address without hearing of us again:
// as long as the lease, so that it goes even where the guardian was killed, too.
// The kernel counts whole seconds: a short lease is none, or it would go while a
// busy machine only stops for a moment.
func (g *guardian) seconds(lease time.Duration) int {
	if g.Promise < 4*time.Second {
		return 0
	}
	return max(int((lease-now())/time.Second), 1)
}
