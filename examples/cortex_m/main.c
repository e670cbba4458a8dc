/* Runs a network on each image of images.h, and prints the outputs, one line an image.
 *
 * Numbers are printed as their bits, in hexadecimal digits, which needs no library.
 */

#include "images.h"
#include "network.h"
#include "startup.h"

#include <string.h>

static void print_bits(number value)
{
    char text[] = "00000000 ";
    uint32_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    for (int digit = 7; digit >= 0; --digit, bits >>= 4)
        text[digit] = "0123456789abcdef"[bits & 15u];
    print(text);
}

int main(void)
{
    static number output[NETWORK_OUTPUT_SIZE];
    for (int i = 0; i < IMAGES; ++i) {
        network_run(images[i], output);
        for (int k = 0; k < NETWORK_OUTPUT_SIZE; ++k)
            print_bits(output[k]);
        print("\n");
    }
    return 0;
}
