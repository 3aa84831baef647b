"""Steps whose loss or gradient is not a finite number: left out on the device, searched for, acted on."""
