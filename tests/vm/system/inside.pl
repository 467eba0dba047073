#!/usr/bin/perl
# What a running process may do, tried in the process itself: stops one of its threads, lets that thread make system calls, and
# lets it go on as if nothing had been. So user, namespaces, system call filter and capabilities are the very ones.
#
#   inside.pl PID open PATH | create PATH | exec PATH | socket FAMILY ...
#
# Prints one line for each: the words and "allowed" or the error's number and name. Owns nothing. Relies on aarch64 (register
# and system call numbers), Perl without any module that is not in perl-base, and the right to trace. A call that is allowed and
# opens something is undone; an exec that is allowed replaces the process, and the caller sees that.
use strict;
use warnings;
no warnings "portable";    # numbers of more than 32 bits
use Errno ();

my ($ATTACH, $DETACH, $STEP, $GETREGSET, $SETREGSET) = (16, 17, 9, 0x4204, 0x4205);    # linux/ptrace.h
my ($PTRACE, $OPENAT, $CLOSE, $SOCKET, $EXECVE, $UNLINKAT) = (117, 56, 57, 198, 221, 35);    # asm-generic/unistd.h
my ($HERE, $ALL_THREADS, $REGISTERS) = (-100, 0x40000000, 34 * 8);    # AT_FDCWD, __WALL; x0 to x30, sp, pc, pstate
my ($WRITE_NEW, $READ) = (0301, 0);    # O_WRONLY | O_CREAT | O_EXCL, O_RDONLY

my $pid = 0 + shift @ARGV;

sub trace {
    my ($request, $address, $data) = @_;
    my $done = syscall($PTRACE, $request, $pid, $address, $data);
    die "ptrace $request: $!\n" if $done < 0;
}

sub registers {
    my $space = "\0" x $REGISTERS;
    my $where = pack("QQ", unpack("Q", pack("P", $space)), $REGISTERS);
    trace($GETREGSET, 1, $where);
    return unpack("q31QQQ", $space);
}

sub set_registers {
    my $space = pack("q31QQQ", @_);
    my $where = pack("QQ", unpack("Q", pack("P", $space)), $REGISTERS);
    trace($SETREGSET, 1, $where);
}

# A place in the C library that holds the instruction `svc #0`, and is not where the thread stands.
sub system_call_instruction {
    my ($not_here) = @_;
    open(my $maps, "<", "/proc/$pid/maps") or die "maps: $!\n";
    open(my $memory, "<", "/proc/$pid/mem") or die "mem: $!\n";
    while (my $line = <$maps>) {
        my ($from, $to) = $line =~ m{^([0-9a-f]+)-([0-9a-f]+) r-xp .*libc[.-]} or next;
        $from = hex $from;
        my $length = hex($to) - $from;
        sysseek($memory, $from, 0) or die "seek: $!\n";
        sysread($memory, my $text, $length) or die "read: $!\n";
        for (my $at = index($text, "\x01\0\0\xd4"); $at >= 0; $at = index($text, "\x01\0\0\xd4", $at + 4)) {
            return $from + $at if $at % 4 == 0 && $from + $at != $not_here && $from + $at != $not_here - 4;
        }
    }
    die "no system call in its C library\n";
}

trace($ATTACH, 0, 0);
waitpid($pid, $ALL_THREADS);
my @before = registers();
my ($stack, $place) = ($before[31], $before[32]);
my $svc = system_call_instruction($place);
open(my $memory, "+<", "/proc/$pid/mem") or die "mem: $!\n";

# One system call of the process; its result, or the negative error number.
sub call {
    my ($number, @arguments) = @_;
    my @now = @before;
    $now[$_] = $arguments[$_] // 0 for 0 .. 5;
    $now[8] = $number;
    $now[32] = $svc;
    set_registers(@now);
    trace($STEP, 0, 0);
    waitpid($pid, $ALL_THREADS);
    if (($? & 0x7f) && ($? & 0xff) != 0x7f) {
        printf "the process is dead: signal %d\n", $? & 0x7f;
        exit 3;
    }
    return (registers())[0];
}

# Puts a word where no function of the thread keeps anything, and returns its address.
sub put {
    my ($text, $room) = @_;
    my $address = ($stack - 4096 - 512 * $room) & ~15;
    sysseek($memory, $address, 0) or die "seek: $!\n";
    syswrite($memory, "$text\0") or die "write: $!\n";
    return $address;
}

sub told {
    my ($result) = @_;
    return "allowed" if $result >= 0;
    local $! = -$result;
    my ($name) = grep { exists &{"Errno::$_"} && Errno->can($_)->() == -$result } keys %!;
    return ($name // "error") . " ($!)";
}

my @lines;
while (@ARGV) {
    my ($what, $word) = splice(@ARGV, 0, 2);
    my $result;
    if ($what eq "socket") {
        $result = call($SOCKET, $word, $word == 29 || $word == 17 || $word == 16 ? 3 : 1, $word == 29 ? 1 : 0);
    } elsif ($what eq "exec") {
        my $path = put($word, 0);
        my $list = put(pack("QQ", $path, 0), 1);
        $result = call($EXECVE, $path, $list, $list + 8);
    } else {
        $result = call($OPENAT, $HERE, put($word, 0), $what eq "create" ? $WRITE_NEW : $READ, 0600);
        call($UNLINKAT, $HERE, put($word, 0), 0) if $result >= 0 && $what eq "create";
    }
    push @lines, "$what $word: " . told($result);
    call($CLOSE, $result) if $result >= 0 && $what ne "exec";
}
set_registers(@before);
trace($DETACH, 0, 0);
print "$_\n" for @lines;
