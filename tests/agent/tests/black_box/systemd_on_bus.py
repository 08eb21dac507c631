"""Plays org.freedesktop.systemd1 on a bus: GetUnitByPID, and Id and FragmentPath of units.

systemd_on_bus.py ADDRESS UNIT FRAGMENT_PATH PROGRAM

Processes that run PROGRAM are in the unit; others are in none. Prints "ready" once it owns the name."""

import os
import sys

import dbus
import dbus.bus
import dbus.mainloop.glib
import dbus.service
from gi.repository import GLib

NAME = "org.freedesktop.systemd1"


class NoUnit(dbus.DBusException):
    _dbus_error_name = NAME + ".NoUnitForPID"


class Manager(dbus.service.Object):
    program = ""

    @dbus.service.method(NAME + ".Manager", in_signature="u", out_signature="o")
    def GetUnitByPID(self, pid):
        if os.readlink("/proc/%d/exe" % pid) != self.program:
            raise NoUnit("PID %d does not belong to any loaded unit." % pid)
        return dbus.ObjectPath("/org/freedesktop/systemd1/unit/web")


class Unit(dbus.service.Object):
    properties = {}

    @dbus.service.method("org.freedesktop.DBus.Properties", in_signature="ss", out_signature="v")
    def Get(self, interface, name):
        assert interface == NAME + ".Unit"
        return self.properties[name]


def main():
    address, unit, fragment, program = sys.argv[1:]
    dbus.mainloop.glib.DBusGMainLoop(set_as_default=True)
    bus = dbus.bus.BusConnection(address)
    owned = dbus.service.BusName(NAME, bus)
    Manager.program = program
    Unit.properties = {"Id": unit, "FragmentPath": fragment}
    objects = [Manager(bus, "/org/freedesktop/systemd1"), Unit(bus, "/org/freedesktop/systemd1/unit/web")]
    print("ready", flush=True)
    GLib.MainLoop().run()
    return owned, objects


main()
