"""Cinder driver of volumes that keep no data: every call succeeds."""

from cinder import interface
from cinder.volume import driver


@interface.volumedriver
class NoData(driver.VolumeDriver):
    VERSION = "1.0"
    CI_WIKI_NAME = "none"

    def _nothing(self, *args, **kwargs):
        return None

    check_for_setup_error = create_volume = delete_volume = extend_volume = create_snapshot = delete_snapshot = _nothing
    create_cloned_volume = create_volume_from_snapshot = copy_image_to_volume = _nothing
    ensure_export = create_export = remove_export = terminate_connection = _nothing

    def initialize_connection(self, volume, connector):
        return {"driver_volume_type": "fake", "data": {"volume_id": volume["id"], "access_mode": "rw"}}

    def _update_volume_stats(self):
        self._stats = {
            "volume_backend_name": "lab",
            "vendor_name": "none",
            "driver_version": self.VERSION,
            "storage_protocol": "fake",
            "total_capacity_gb": 100000,
            "free_capacity_gb": 100000,
            "reserved_percentage": 0,
            "QoS_support": False,
        }
