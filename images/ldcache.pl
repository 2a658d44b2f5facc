# Write etc/ld.so.cache for a root file system of a foreign architecture, whose libraries the host's ldconfig skips.
# The loader finds what is in its default folders without it, but `ldconfig -p`, and with it Python's
# ctypes.util.find_library, knows no others.
#
# usage: perl ldcache.pl FLAGS FOLDER
#   FLAGS  of each library, as a number: the architecture's bits and FLAG_ELF_LIBC6
#
# The format is glibc's own, `struct cache_file_new` in sysdeps/generic/dl-cache.h: a header, then a fixed entry for
# each library, then the names that the entries point to, as offsets from the start of the file.
use strict;
use warnings;

my ($flags, $root) = @ARGV;

# Debian ships each library under its soname: as a link to the file with the full version, or as the file itself.
my ($folder, @others) = map { substr($_, length $root) } glob("$root/usr/lib/*-linux-gnu*");
die "ldcache.pl: expected one folder of libraries in $root/usr/lib\n" if !$folder || @others;
my @names  = grep { /\.so(\.|$)/ } map { s{.*/}{}r } glob("$root$folder/*.so*");
my %linked = map { (readlink("$root$folder/$_") // '') => 1 } @names;
my @listed = grep { !$linked{$_} && -e "$root$folder/$_" } @names;

# The loader searches by halves: names in falling order, runs of digits compared as numbers (_dl_cache_libcmp).
sub parts { map { /^\d/ ? sprintf('1%020d', $_) : sprintf('2%s', $_) } $_[0] =~ /\d+|\D/g }
my %order = map { $_ => join('', map { "$_\0" } parts($_)) } @listed;
@listed = sort { $order{$b} cmp $order{$a} } @listed;

my ($header, $entry) = (48, 24);
my ($entries, $strings) = ('', '');
my $start = $header + $entry * @listed;
for my $name (@listed) {
    my $key = $start + length $strings;
    $strings .= "$name\0";
    my $value = $start + length $strings;
    $strings .= "$folder/$name\0";
    $entries .= pack('l< L< L< L< Q<', $flags, $key, $value, 0, 0);
}
my $little_endian = 2;
open my $file, '>:raw', "$root/etc/ld.so.cache" or die "ldcache.pl: $!\n";
print $file 'glibc-ld.so.cache1.1', pack('L< L< C x3 L< x12', scalar @listed, length $strings, $little_endian, 0),
    $entries, $strings or die "ldcache.pl: $!\n";
close $file or die "ldcache.pl: $!\n";
